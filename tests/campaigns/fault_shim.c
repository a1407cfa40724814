/* Counts the writing calls of all processes that share one state file, and lets the nth fail.
 *
 * Preloaded (LD_PRELOAD) into a process whose children are forked from it; ANVIL_FAULT_STATE names the state file,
 * mapped shared, so that the count runs on across processes. Only calls on paths below one of the prefixes count.
 * A failing call does nothing and says the error: "once" for the nth alone, "on" for every later one that takes room.
 * A negative error is a signal: whoever makes the nth call gets it in the call's place.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define WHERE 320
#define KEPT 4096

struct state {
    int64_t count;    /* calls so far */
    int64_t target;   /* the call that fails; 0: none */
    int64_t failed;   /* how many have failed */
    int32_t error;    /* errno of the failure; negative: a signal to the caller */
    int32_t sticky;   /* every later call that takes room fails too */
    char prefix[2][WHERE]; /* paths that count; "" is none */
    char what[WHERE]; /* the first call that failed */
};

static struct state *state;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("ANVIL_FAULT_STATE");
    if (!path) return;
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (map != MAP_FAILED) state = map;
}

static int below(const char *path) {
    for (int i = 0; i < 2; i++) {
        size_t length = strnlen(state->prefix[i], WHERE);
        if (length && !strncmp(path, state->prefix[i], length) && (path[length] == '/' || !path[length])) return 1;
    }
    return 0;
}

static void name_of(int fd, char *to, size_t size) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, to, size - 1);
    to[length < 0 ? 0 : length] = 0;
}

static int fails(const char *call, const char *path, int takes_room) {
    if (!below(path)) return 0;
    int64_t target = __atomic_load_n(&state->target, __ATOMIC_SEQ_CST);
    int64_t now = __atomic_add_fetch(&state->count, 1, __ATOMIC_SEQ_CST);
    if (!target || now < target || (now > target && !(state->sticky && takes_room))) return 0;
    if (!__atomic_fetch_add(&state->failed, 1, __ATOMIC_SEQ_CST))
        snprintf(state->what, WHERE, "%s %s", call, path);
    if (state->error < 0) kill(getpid(), -state->error);
    errno = state->error;
    return 1;
}

static int fails_fd(const char *call, int fd, int takes_room) {
    if (!state) return 0;
    int saved = errno;
    char path[KEPT];
    name_of(fd, path, sizeof path);
    errno = saved;
    return fails(call, path, takes_room);
}

static int fails_at(const char *call, int fd, const char *name, int takes_room) {
    if (!state || !name) return 0;
    int saved = errno;
    char path[KEPT], folder[KEPT / 2];
    if (name[0] == '/') {
        snprintf(path, sizeof path, "%s", name);
    } else {
        if (fd == AT_FDCWD) {
            if (syscall(SYS_getcwd, folder, sizeof folder) < 0) folder[0] = 0;
        } else {
            name_of(fd, folder, sizeof folder);
        }
        snprintf(path, sizeof path, "%s/%s", folder, name);
    }
    errno = saved;
    return fails(call, path, takes_room);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define ROOM 1
#define NO_ROOM 0

#define ON_FD(result, name, room, parameters, arguments) \
    result name parameters { \
        static __typeof__(&name) real; \
        if (!real) real = REAL(name); \
        if (fails_fd(#name, fd, room)) return -1; \
        return real arguments; \
    }

ON_FD(ssize_t, write, ROOM, (int fd, const void *data, size_t size), (fd, data, size))
ON_FD(ssize_t, pwrite, ROOM, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
ON_FD(ssize_t, pwrite64, ROOM, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
ON_FD(ssize_t, writev, ROOM, (int fd, const struct iovec *parts, int count), (fd, parts, count))
ON_FD(ssize_t, pwritev, ROOM, (int fd, const struct iovec *parts, int count, off_t at), (fd, parts, count, at))
ON_FD(ssize_t, pwritev64, ROOM, (int fd, const struct iovec *parts, int count, off64_t at), (fd, parts, count, at))
ON_FD(ssize_t, sendfile, ROOM, (int fd, int from, off_t *at, size_t size), (fd, from, at, size))
ON_FD(ssize_t, sendfile64, ROOM, (int fd, int from, off64_t *at, size_t size), (fd, from, at, size))
ON_FD(int, ftruncate, ROOM, (int fd, off_t size), (fd, size))
ON_FD(int, ftruncate64, ROOM, (int fd, off64_t size), (fd, size))
ON_FD(int, fallocate, ROOM, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
ON_FD(int, fallocate64, ROOM, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size))
ON_FD(int, fsync, NO_ROOM, (int fd), (fd))
ON_FD(int, fdatasync, NO_ROOM, (int fd), (fd))
ON_FD(int, syncfs, NO_ROOM, (int fd), (fd))

ssize_t copy_file_range(int from, off64_t *a, int fd, off64_t *b, size_t size, unsigned flags) {
    if (fails_fd("copy_file_range", fd, ROOM)) return -1;
    return REAL(copy_file_range)(from, a, fd, b, size, flags);
}

int posix_fallocate(int fd, off_t at, off_t size) {
    if (fails_fd("posix_fallocate", fd, ROOM)) return errno;
    return REAL(posix_fallocate)(fd, at, size);
}

int posix_fallocate64(int fd, off64_t at, off64_t size) {
    if (fails_fd("posix_fallocate64", fd, ROOM)) return errno;
    return REAL(posix_fallocate64)(fd, at, size);
}

#define BY_NAME(name, room, parameters, folder, path, arguments) \
    int name parameters { \
        static __typeof__(&name) real; \
        if (!real) real = REAL(name); \
        if (fails_at(#name, folder, path, room)) return -1; \
        return real arguments; \
    }

BY_NAME(rename, ROOM, (const char *from, const char *to), AT_FDCWD, to, (from, to))
BY_NAME(renameat, ROOM, (int a, const char *from, int b, const char *to), b, to, (a, from, b, to))
BY_NAME(renameat2, ROOM, (int a, const char *from, int b, const char *to, unsigned flags), b, to,
        (a, from, b, to, flags))
BY_NAME(link, ROOM, (const char *from, const char *to), AT_FDCWD, to, (from, to))
BY_NAME(linkat, ROOM, (int a, const char *from, int b, const char *to, int flags), b, to, (a, from, b, to, flags))
BY_NAME(symlink, ROOM, (const char *target, const char *to), AT_FDCWD, to, (target, to))
BY_NAME(symlinkat, ROOM, (const char *target, int b, const char *to), b, to, (target, b, to))
BY_NAME(mkdir, ROOM, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))
BY_NAME(mkdirat, ROOM, (int folder, const char *path, mode_t mode), folder, path, (folder, path, mode))
BY_NAME(mknod, ROOM, (const char *path, mode_t mode, dev_t device), AT_FDCWD, path, (path, mode, device))
BY_NAME(mknodat, ROOM, (int folder, const char *path, mode_t mode, dev_t device), folder, path,
        (folder, path, mode, device))
BY_NAME(mkfifo, ROOM, (const char *path, mode_t mode), AT_FDCWD, path, (path, mode))
BY_NAME(unlink, NO_ROOM, (const char *path), AT_FDCWD, path, (path))
BY_NAME(unlinkat, NO_ROOM, (int folder, const char *path, int flags), folder, path, (folder, path, flags))
BY_NAME(rmdir, NO_ROOM, (const char *path), AT_FDCWD, path, (path))
BY_NAME(truncate, ROOM, (const char *path, off_t size), AT_FDCWD, path, (path, size))

#define OPEN(name, parameters, folder, arguments) \
    int name parameters { \
        mode_t mode = 0; \
        if ((flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) { \
            va_list more; \
            va_start(more, flags); \
            mode = va_arg(more, mode_t); \
            va_end(more); \
            if (fails_at(#name, folder, path, ROOM)) return -1; \
        } \
        return REAL(name) arguments; \
    }

OPEN(open, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD, (path, flags, mode))
OPEN(openat, (int folder, const char *path, int flags, ...), folder, (folder, path, flags, mode))
OPEN(openat64, (int folder, const char *path, int flags, ...), folder, (folder, path, flags, mode))
