/*
 * Lets the Nth file operation of a program go wrong, once.
 *
 * Preloaded (LD_PRELOAD). Counts the calls below that touch a path under FAULT_FOLDER, over all threads, and
 * writes one byte for each to FAULT_LOG: `w` if it writes bytes, `o` else. At number FAULT_AT (from 1) it does
 * FAULT_KIND:
 *
 *   error    the call fails with EIO
 *   full     the call fails with ENOSPC
 *   short    a write takes half of its bytes, and the next write fails with ENOSPC
 *   before   the process is killed instead of the call
 *   after    the process is killed when the call is done
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { NONE, ERROR, FULL, SHORT, BEFORE, AFTER };

static atomic_long count;
static atomic_int full_next;
static const char *folder;
static size_t folder_length;
static long fault_at;
static enum kind fault_kind;
static int log_fd = -1;

__attribute__((constructor)) static void start(void) {
    folder = getenv("FAULT_FOLDER");
    const char *at = getenv("FAULT_AT"), *kind = getenv("FAULT_KIND"), *log = getenv("FAULT_LOG");
    if (!folder) return;
    folder_length = strlen(folder);
    fault_at = at ? atol(at) : 0;
    const char *names[] = {"none", "error", "full", "short", "before", "after"};
    for (int n = 0; kind && n < 6; n++)
        if (!strcmp(kind, names[n])) fault_kind = (enum kind)n;
    if (log) log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int under(const char *path) {
    return folder && path && !strncmp(path, folder, folder_length);
}

static int fd_under(int fd) {
    char link[64], path[PATH_MAX];
    if (!folder || fd < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return under(path);
}

/* What shall happen to this call. */
static enum kind counted(char what) {
    if (what == 'w' && atomic_exchange(&full_next, 0)) return FULL;
    long number = atomic_fetch_add(&count, 1) + 1;
    if (log_fd >= 0) syscall(SYS_write, log_fd, &what, 1);
    if (number != fault_at) return NONE;
    if (fault_kind == BEFORE) {
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;) pause();
    }
    return fault_kind;
}

static void done(enum kind kind) {
    if (kind == AFTER) {
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;) pause();
    }
}

static int fails(enum kind kind) {
    if (kind == ERROR) errno = EIO;
    else if (kind == FULL || kind == SHORT) errno = ENOSPC;
    else return 0;
    return 1;
}

/* A call that gives an int: the condition, then the call. */
#define PASS(condition, what, name, parameters, arguments)             \
    int name parameters {                                              \
        static int(*real) parameters;                                  \
        if (!real) real = (int(*) parameters)dlsym(RTLD_NEXT, #name);  \
        if (!(condition)) return real arguments;                       \
        enum kind kind = counted(what);                                \
        if (fails(kind)) return -1;                                    \
        int result = real arguments;                                   \
        int error = errno;                                             \
        done(kind);                                                    \
        errno = error;                                                 \
        return result;                                                 \
    }

/* A call that writes bytes. */
#define WRITES(name, parameters, arguments, halved)                        \
    ssize_t name parameters {                                              \
        static ssize_t(*real) parameters;                                  \
        if (!real) real = (ssize_t(*) parameters)dlsym(RTLD_NEXT, #name);  \
        if (!fd_under(fd)) return real arguments;                          \
        enum kind kind = counted('w');                                     \
        if (kind == SHORT) {                                               \
            atomic_store(&full_next, 1);                                   \
            return real halved;                                            \
        }                                                                  \
        if (fails(kind)) return -1;                                        \
        ssize_t result = real arguments;                                   \
        int error = errno;                                                 \
        done(kind);                                                        \
        errno = error;                                                     \
        return result;                                                     \
    }

#define HALF(length) ((length) > 1 ? (length) / 2 : (length))

WRITES(write, (int fd, const void *bytes, size_t length), (fd, bytes, length), (fd, bytes, HALF(length)))
WRITES(pwrite, (int fd, const void *bytes, size_t length, off_t at), (fd, bytes, length, at), (fd, bytes, HALF(length), at))
WRITES(pwrite64, (int fd, const void *bytes, size_t length, off64_t at), (fd, bytes, length, at), (fd, bytes, HALF(length), at))
WRITES(writev, (int fd, const struct iovec *parts, int n), (fd, parts, n), (fd, parts, HALF(n)))
WRITES(pwritev, (int fd, const struct iovec *parts, int n, off_t at), (fd, parts, n, at), (fd, parts, HALF(n), at))
WRITES(pwritev64, (int fd, const struct iovec *parts, int n, off64_t at), (fd, parts, n, at), (fd, parts, HALF(n), at))

PASS(fd_under(fd), 'o', fsync, (int fd), (fd))
PASS(fd_under(fd), 'o', fdatasync, (int fd), (fd))
PASS(fd_under(fd), 'o', ftruncate, (int fd, off_t length), (fd, length))
PASS(fd_under(fd), 'o', ftruncate64, (int fd, off64_t length), (fd, length))
PASS(fd_under(fd), 'o', fallocate, (int fd, int mode, off_t at, off_t length), (fd, mode, at, length))
PASS(fd_under(fd), 'o', fallocate64, (int fd, int mode, off64_t at, off64_t length), (fd, mode, at, length))
PASS(fd_under(fd), 'o', fchmod, (int fd, mode_t mode), (fd, mode))
PASS(under(to), 'o', rename, (const char *from, const char *to), (from, to))
PASS(under(to), 'o', renameat, (int a, const char *from, int b, const char *to), (a, from, b, to))
PASS(under(to), 'o', link, (const char *from, const char *to), (from, to))
PASS(under(to), 'o', linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))
PASS(under(path), 'o', unlink, (const char *path), (path))
PASS(under(path), 'o', unlinkat, (int a, const char *path, int flags), (a, path, flags))
PASS(under(path), 'o', mkdir, (const char *path, mode_t mode), (path, mode))
PASS(under(path), 'o', mkdirat, (int a, const char *path, mode_t mode), (a, path, mode))
PASS(under(path), 'o', creat, (const char *path, mode_t mode), (path, mode))
PASS(under(path), 'o', creat64, (const char *path, mode_t mode), (path, mode))

#define MODE_OF(flags)                                        \
    mode_t mode = 0;                                          \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                  \
        va_list rest;                                         \
        va_start(rest, flags);                                \
        mode = va_arg(rest, mode_t);                          \
        va_end(rest);                                         \
    }

#define OPENS(name)                                                                   \
    int name(const char *path, int flags, ...) {                                      \
        static int (*real)(const char *, int, ...);                                   \
        if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name);   \
        MODE_OF(flags)                                                                \
        if (!under(path)) return real(path, flags, mode);                             \
        enum kind kind = counted('o');                                                \
        if (fails(kind)) return -1;                                                   \
        int result = real(path, flags, mode);                                         \
        int error = errno;                                                            \
        done(kind);                                                                   \
        errno = error;                                                                \
        return result;                                                                \
    }

#define OPENS_AT(name)                                                                    \
    int name(int at, const char *path, int flags, ...) {                                  \
        static int (*real)(int, const char *, int, ...);                                  \
        if (!real) real = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name);  \
        MODE_OF(flags)                                                                    \
        if (!under(path)) return real(at, path, flags, mode);                             \
        enum kind kind = counted('o');                                                    \
        if (fails(kind)) return -1;                                                       \
        int result = real(at, path, flags, mode);                                         \
        int error = errno;                                                                \
        done(kind);                                                                       \
        errno = error;                                                                    \
        return result;                                                                    \
    }

OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)
