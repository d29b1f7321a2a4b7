"""The digest of an instance's octets: the door to xxhash.

XXH3-128, written `xxh3:` and 32 hexadecimal digits. `file` is over every octet of the file as it stands.
"""

from xxhash import xxh3_128

hasher = xxh3_128
"""Makes a running digest: `update(octets)`, `hexdigest()`."""
