"""A pass-through file system where a file hangs while its name stands in HANG in the folder given third.

A line of HANG is the end of a path; an empty one hangs everything. HELD appears beside it when a call hangs.
"""

import errno
import os
import sys
import time

from fuse import FUSE, FuseOSError, Operations

STAT = "st_atime st_ctime st_gid st_mode st_mtime st_nlink st_size st_uid st_ino".split()


class Hanging(Operations):
    def __init__(self, root, hang):
        self.root, self.switch, self.held = root, os.path.join(hang, "HANG"), os.path.join(hang, "HELD")

    def at(self, path):
        return self.root + path

    def hang(self, path):
        while self.hangs(path):
            open(self.held, "w").close()
            time.sleep(0.02)

    def hangs(self, path):
        try:
            with open(self.switch) as switch:
                return any(path.endswith(end) for end in switch.read().split("\n"))
        except FileNotFoundError:
            return False

    def access(self, path, mode):
        if not os.access(self.at(path), mode):
            raise FuseOSError(errno.EACCES)

    def getattr(self, path, fh=None):
        self.hang(path)
        found = os.lstat(self.at(path))
        return {name: getattr(found, name) for name in STAT}

    def readdir(self, path, fh):
        self.hang(path)
        return [".", ".."] + os.listdir(self.at(path))

    def mkdir(self, path, mode):
        return os.mkdir(self.at(path), mode)

    def mknod(self, path, mode, device):
        return os.mknod(self.at(path), mode, device)

    def chown(self, path, user, group):
        return os.chown(self.at(path), user, group)

    def unlink(self, path):
        return os.unlink(self.at(path))

    def rename(self, old, new):
        return os.rename(self.at(old), self.at(new))

    def link(self, target, name):
        return os.link(self.at(name), self.at(target))

    def chmod(self, path, mode):
        return os.chmod(self.at(path), mode)

    def open(self, path, flags):
        self.hang(path)
        return os.open(self.at(path), flags)

    def create(self, path, mode, info=None):
        self.hang(path)
        return os.open(self.at(path), os.O_RDWR | os.O_CREAT, mode)

    def read(self, path, size, offset, fh):
        self.hang(path)
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        self.hang(path)
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(self.at(path), length)

    def flush(self, path, fh):
        return 0

    def release(self, path, fh):
        return os.close(fh)

    def fsync(self, path, data, fh):
        return os.fsync(fh)

    def fsyncdir(self, path, data, fh):
        return 0


FUSE(
    Hanging(sys.argv[1], sys.argv[3]),
    sys.argv[2],
    foreground=True,
    nothreads=False,
    attr_timeout=0,
    entry_timeout=0,
    use_ino=True,
)
