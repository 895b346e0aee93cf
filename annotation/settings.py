"""Django settings. The environment is read here alone; a bad or unsafe value stops the start.

CONCORD_MODE=laptop (set by `make run`): SQLite and a random key in var/, 127.0.0.1 only.
CONCORD_MODE=team (the default): DATABASE_URL, REDIS_URL, CONCORD_SECRET_KEY and CONCORD_HOSTS
must be set, and the site expects to stand behind HTTPS.
"""

import secrets
from pathlib import Path

import django_stubs_ext
from csp.constants import NONE, SELF
from django.utils.translation import gettext_lazy as _

from annotation import environment as env

django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
MODE = env.text("CONCORD_MODE", "team", choices=("laptop", "team"))
LAPTOP = MODE == "laptop"
VAR_DIR = Path(env.text("CONCORD_VAR", str(BASE_DIR / "var"))).resolve()


def _laptop_key() -> str:
    """A random key made once and kept in var/, readable by its owner alone."""
    path = VAR_DIR / "secret_key"
    if not path.is_file():
        VAR_DIR.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(64))
    return path.read_text()


DEBUG = False
SECRET_KEY = _laptop_key() if LAPTOP else env.secret_key("CONCORD_SECRET_KEY")
ALLOWED_HOSTS = env.hosts("CONCORD_HOSTS", ["127.0.0.1", "localhost"] if LAPTOP else [])
if not ALLOWED_HOSTS:
    env.text("CONCORD_HOSTS")
CSRF_TRUSTED_ORIGINS = env.origins("CONCORD_ORIGINS")

# Model directories, datasets and run folders. One file system: publishing is a rename.
ARTIFACTS_DIR = Path(env.text("CONCORD_ARTIFACTS", str(VAR_DIR / "artifacts"))).resolve()
# How much a person may hand in at once to be imported; more goes through the commands.
UPLOAD_BYTES = env.number("CONCORD_UPLOAD_MB", 2000, 1, 1_000_000) * 1_000_000
# Files that a training job's config may name by path lie under one of these.
DATA_DIRS = [BASE_DIR / "fixtures", VAR_DIR / "data"]
FIXTURES_DIR = BASE_DIR / "fixtures"

# With more, threads wait for each other's turn at the interpreter: at 8 the slowest hundredth of
# clicks takes half as long again. More cores want more web processes (WEB_CONCURRENCY).
WEB_THREADS = env.number("CONCORD_WEB_THREADS", 4, 1, 256)
# annotation/asgi.py asks for a pool: only the web process has threads that come and go.
DATABASE_POOL = env.text("CONCORD_DATABASE_POOL", "no", choices=("yes", "no")) == "yes"
DATABASES = {
    "default": env.database(
        "DATABASE_URL",
        f"sqlite://{VAR_DIR / 'concord.sqlite3'}" if LAPTOP else "",
        most_connections=WEB_THREADS + 16 if DATABASE_POOL else 0,
    )
}
REDIS_URL = env.redis_url("REDIS_URL", f"unix://{VAR_DIR / 'redis.sock'}" if LAPTOP else None)
HEARTBEAT_SECONDS = env.number("CONCORD_HEARTBEAT_SECONDS", 5, 1, 600)
STALE_SECONDS = env.number("CONCORD_STALE_SECONDS", 30, 2, 3600)
TRAINER_PROCESSES = env.number("CONCORD_TRAINER_PROCESSES", 1, 1, 64)
TICK_SECONDS = env.number("CONCORD_TICK_SECONDS", 3, 1, 600)
# Limits (annotation/limits.py); 0 = none. A laptop has one person, and its demo labels fast.
API_PER_MINUTE = env.number("CONCORD_API_PER_MINUTE", 0 if LAPTOP else 1200, 0, 1_000_000)
ANONYMOUS_PER_MINUTE = env.number("CONCORD_ANONYMOUS_PER_MINUTE", 120, 0, 1_000_000)
SIGN_IN_FAILURES = env.number("CONCORD_SIGN_IN_FAILURES", 10, 3, 1000)
# How many proxies of our own stand in front and add to X-Forwarded-For.
PROXIES = env.number("CONCORD_PROXIES", 0 if LAPTOP else 1, 0, 10)
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "annotation.apps.ConcordAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_htmx",
    "csp",
    "annotation.apps.AnnotationConfig",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "annotation.urls"
ASGI_APPLICATION = "annotation.asgi.application"
WSGI_APPLICATION = "annotation.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.template.context_processors.i18n",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

AUTH_USER_MODEL = "annotation.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "/sign-in/"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/sign-in/"

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("zh-hans", _("Simplified Chinese"))]
LOCALE_PATHS = [BASE_DIR / "annotation" / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"

STATIC_URL = "/static/"
STATIC_ROOT = VAR_DIR / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if LAPTOP
        else "annotation.static_storage.HashedModules"
    },
}
WHITENOISE_USE_FINDERS = LAPTOP

# Model text is untrusted: no inline script, no foreign origin, no frame, nothing from elsewhere.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
if not LAPTOP:
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]  # asked by neighbours, without a proxy
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    SECURE_HSTS_SECONDS = 31_536_000

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "annotation.api.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_THROTTLE_CLASSES": ["annotation.api.throttling.ApiThrottle"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "annotation.api.openapi.ScopedSchema",
    "DEFAULT_PAGINATION_CLASS": "rest_framework.pagination.CursorPagination",
    "PAGE_SIZE": 50,
    "EXCEPTION_HANDLER": "annotation.api.errors.handle_exception",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Concord",
    "DESCRIPTION": "Claim comparisons, submit preferences, watch training, take datasets away.",
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    # three fields are called kind, four state
    "ENUM_NAME_OVERRIDES": {
        "AssignmentState": "annotation.models.AssignmentState",
        "InvitationState": "annotation.models.InvitationState",
        "GoldState": "annotation.models.GoldState",
        "ReportState": "annotation.models.ReportState",
        "ReviewState": "annotation.models.ReviewState",
        "TurnState": "annotation.models.TurnState",
        "JobKind": "annotation.models.JobKind",
        "LeaseKind": "annotation.models.LeaseKind",
        "VersionKind": "annotation.models.VersionKind",
    },
}

# Mails to admins (annotation/services/mails.py). Unset, none is written or sent.
MAILS = env.mail("CONCORD_MAIL_URL", "CONCORD_MAIL_FROM")
globals().update(MAILS or {"EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend"})
# Where their links lead.
SITE_URL = (
    CSRF_TRUSTED_ORIGINS[0]
    if CSRF_TRUSTED_ORIGINS
    else "http://127.0.0.1:8000"
    if LAPTOP
    else f"https://{ALLOWED_HOSTS[0]}"
)

LOG_FORMAT = env.text("CONCORD_LOG", "line", choices=("line", "json"))
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"},
        "json": {"()": "annotation.logs.JsonLines"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
# Whether all subdomains speak HTTPS, now and in browsers' preload lists, is for the domain's owner
# to say; the proxy in front may add it to the header.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
