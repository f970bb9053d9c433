"""What runs on the rented machine, and the two JSON documents that cross the wire.

At module level it needs the standard library only; `providers` gives it errors and object stores.
"""

BUNDLE_MODULES = (
    "providers/__init__.py",
    "providers/conditions.py",
    "providers/errors.py",
    "providers/object_store.py",
    "providers/directory_store.py",
    "providers/obstore_store.py",
    "providers/pace.py",
    "providers/ranges.py",
    "providers/renewed_keys.py",
    "providers/s3.py",
    "providers/s3_errors.py",
    "providers/s3_location.py",
    "providers/s3_upload.py",
    "providers/sealed.py",
    "providers/self_release.py",
    "providers/stores.py",
)
"""Files of `providers` that the worker needs beside the whole of `jobs`."""
