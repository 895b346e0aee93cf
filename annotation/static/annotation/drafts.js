/* Drafts: what was filled in survives a reload, a closed window and a lost connection. */

const DRAFT = "concord-draft-";
const KEPT_DRAFTS = 20;
const NOT_KEPT = /^(key|csrf)/;

function nameOf(form) {
  return form?.dataset.draft ? DRAFT + form.dataset.draft : "";
}

export function saveDraft(form) {
  const name = nameOf(form);
  if (!name) return;
  const filled = [...new FormData(form)].filter(([field, value]) => value && !NOT_KEPT.test(field));
  if (!filled.length) return localStorage.removeItem(name);
  const others = Object.keys(localStorage).filter((kept) => kept.startsWith(DRAFT) && kept !== name);
  others.slice(0, Math.max(0, others.length - KEPT_DRAFTS)).forEach((kept) => localStorage.removeItem(kept));
  localStorage.setItem(name, JSON.stringify(filled));
}

export function dropDraft(form) {
  if (nameOf(form)) localStorage.removeItem(nameOf(form));
}

/* Fill the form with its draft; true where there was one. */
export function takeUpDraft(form) {
  const kept = nameOf(form) && localStorage.getItem(nameOf(form));
  if (!kept) return false;
  for (const [field, value] of JSON.parse(kept)) {
    for (const input of [...form.elements].filter((one) => one.name === field)) {
      if (/^(radio|checkbox)$/.test(input.type)) input.checked ||= input.value === value;
      else input.value = value;
      if (input.tagName === "TEXTAREA") input.closest("details").open = true;
    }
  }
  return true;
}
