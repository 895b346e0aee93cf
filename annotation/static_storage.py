"""Static files with their hash in the name, the modules that scripts import included."""

from whitenoise.storage import CompressedManifestStaticFilesStorage


class HashedModules(CompressedManifestStaticFilesStorage):
    """A script's `import "./sending.js"` follows the file to its hashed name."""

    support_js_module_import_aggregation = True
