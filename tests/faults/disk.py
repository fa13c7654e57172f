"""A small disk of memory at a directory, that can be filled up and cleared again."""

import errno
import os
import subprocess

from network import need


class SmallDisk:
    """A tmpfs; it is unmounted however the row ends, also where somebody holds files of it."""

    def __init__(self, directory, size_mb):
        need("mount", "umount")
        self.directory, self._size = directory, size_mb
        self._ballast = os.path.join(directory, "ballast")

    def __enter__(self):
        os.makedirs(self.directory, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self._size}m", "sluice-fault",
                        self.directory], check=True, timeout=20)
        return self

    def fill(self):
        """Nothing is free afterwards."""
        for block in (bytes(1 << 16), bytes(1 << 12)):
            try:
                with open(self._ballast, "ab", buffering=0) as f:
                    while True:
                        f.write(block)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def clear(self):
        os.unlink(self._ballast)

    def __exit__(self, *_error):
        subprocess.run(["umount", "--lazy", self.directory], check=False, timeout=20)
