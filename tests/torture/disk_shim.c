/* Preloaded into a process under test: records what it does to the files below one directory, lets
 * calls fail or hang on demand, and moves the wall clock.
 *
 * TORTURE_ROOT     the directory, absolute; all else passes through untouched
 * TORTURE_LOG      records are appended here, see `put`; nothing is recorded without it
 * TORTURE_CONTROL  a `struct control`, mapped: the test changes it while the process runs
 *
 * One lock is held around each call and its record, so that the log is the order in which the disk
 * saw the calls. A call that would change files in a way that is not recorded ends the process: a
 * silent gap in the log would make every result worthless.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The same numbers as `Call` in disk.py; the first ones can be made to fail. */
enum { WRITE, SYNC, TRUNCATE, ALLOCATE, OPEN, UNLINK, RENAME, MKDIR, FAILED_SYNC, CALLS };

enum { HANG = -1 };

struct control {
    int64_t clock_offset_ns;
    int32_t call;          /* which call fails; CALLS for none */
    int32_t error;         /* an errno, or HANG: wait until `call` is changed, then go on */
    atomic_int skip;       /* so many of these calls pass before */
    atomic_int times;      /* so many fail; negative: all from then on */
    atomic_int hanging;    /* calls that wait now */
    atomic_int failed;     /* calls that failed so far */
    atomic_int made[CALLS];
    char part[64];         /* only paths that hold this text */
};

static struct control none = {.call = CALLS}, *control = &none;
static const char *root;
static size_t root_length;
static int log_fd = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define DESCRIPTORS 4096
static char *paths[DESCRIPTORS]; /* of the descriptors below the root; never freed while open */

#define REAL(name)                                                                   \
    static __typeof__(name) *real;                                                   \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static void die(const char *why, const char *path)
{
    fprintf(stderr, "disk_shim: %s: %s\n", why, path);
    abort();
}

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("TORTURE_CONTROL");
    root = getenv("TORTURE_ROOT");
    if (!root) return;
    root_length = strlen(root);
    if (file) {
        int fd = open(file, O_RDWR | O_CLOEXEC);
        void *mapped = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (fd < 0 || mapped == MAP_FAILED) die("cannot map the control", file);
        close(fd);
        control = mapped;
    }
    if ((file = getenv("TORTURE_LOG"))) {
        log_fd = open(file, O_WRONLY | O_APPEND | O_CLOEXEC);
        if (log_fd < 0) die("cannot open the log", file);
    }
}

/* The path of a file below the root, else NULL. */
static const char *watched(const char *path)
{
    if (!root || !path || strncmp(path, root, root_length)) return NULL;
    return path[root_length] == '/' || !path[root_length] ? path : NULL;
}

static const char *watched_fd(int fd) { return fd >= 0 && fd < DESCRIPTORS ? paths[fd] : NULL; }

/* One record: a head, the path below the root, and data (of a write) or the new path (a rename). */
static void put(int call, const char *path, ino_t inode, int64_t at, const void *data, size_t size)
{
    struct { uint32_t call, path_size; uint64_t inode; int64_t at; uint64_t size; } head = {
        call, strlen(path + root_length), inode, at, size};
    struct iovec parts[] = {
        {&head, sizeof head}, {(char *)path + root_length, head.path_size}, {(void *)data, data ? size : 0}};
    if (log_fd < 0) return;
    ssize_t whole = sizeof head + head.path_size + (data ? size : 0);
    REAL(writev);
    if (real(log_fd, parts, 3) != whole) die("cannot write the log", path);
}

static ino_t inode_of(int fd)
{
    struct stat found;
    return fstat(fd, &found) ? 0 : found.st_ino;
}

/* The errno with which this call is to fail, 0 for none. Waits here when it is to hang. */
static int fault(int call, const char *path)
{
    if (!strstr(path, control->part)) return 0;
    atomic_fetch_add(&control->made[call], 1);
    if (control->call != call) return 0;
    if (atomic_load(&control->skip) > 0 && atomic_fetch_sub(&control->skip, 1) > 0) return 0;
    if (!atomic_load(&control->times)) return 0;
    if (atomic_load(&control->times) > 0) atomic_fetch_sub(&control->times, 1);
    if (control->error != HANG) {
        atomic_fetch_add(&control->failed, 1);
        return control->error;
    }
    atomic_fetch_add(&control->hanging, 1);
    while (control->call == call) usleep(2000);
    atomic_fetch_sub(&control->hanging, 1);
    return 0;
}

/* -- descriptors ---------------------------------------------------------------------------- */

static int opened(const char *path, int flags, mode_t mode, int folder)
{
    REAL(openat);
    const char *below = watched(path);
    if (!below) return real(folder, path, flags, mode);
    if ((errno = fault(OPEN, path))) return -1;
    pthread_mutex_lock(&lock);
    int is_new = (flags & O_CREAT) && faccessat(folder, path, F_OK, 0);
    int fd = real(folder, path, flags, mode), error = errno;
    if (fd >= DESCRIPTORS) die("too many descriptors", path);
    if (fd >= 0) {
        paths[fd] = strdup(path);
        if (is_new) put(OPEN, path, inode_of(fd), 0, NULL, 0);
        else if (flags & O_TRUNC) put(TRUNCATE, path, inode_of(fd), 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE(flags)                                                                  \
    mode_t mode = 0;                                                                 \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                           \
        va_list rest;                                                                \
        va_start(rest, flags);                                                       \
        mode = va_arg(rest, mode_t);                                                 \
        va_end(rest);                                                                \
    }

int open(const char *path, int flags, ...) { MODE(flags) return opened(path, flags, mode, AT_FDCWD); }
int open64(const char *path, int flags, ...) { MODE(flags) return opened(path, flags, mode, AT_FDCWD); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags) return opened(path, flags, mode, folder); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags) return opened(path, flags, mode, folder); }

int close(int fd)
{
    REAL(close);
    char *path = NULL;
    if (fd >= 0 && fd < DESCRIPTORS) {
        pthread_mutex_lock(&lock);
        path = paths[fd];
        paths[fd] = NULL;
        pthread_mutex_unlock(&lock);
    }
    free(path);
    return real(fd);
}

/* -- what changes a file -------------------------------------------------------------------- */

static ssize_t written(int fd, const void *data, size_t size, off64_t at)
{
    REAL(pwrite64);
    const char *path = paths[fd];
    int error = fault(WRITE, path);
    if (error) size /= 2; /* a disk that fills up takes a part first */
    pthread_mutex_lock(&lock);
    ssize_t done = real(fd, data, size, at);
    if (done > 0) put(WRITE, path, inode_of(fd), at, data, done);
    pthread_mutex_unlock(&lock);
    if (error) errno = error;
    return error ? -1 : done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    REAL(pwrite64);
    return watched_fd(fd) ? written(fd, data, size, at) : real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    if (!watched_fd(fd)) return real(fd, data, size);
    off64_t at = lseek64(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
    ssize_t done = written(fd, data, size, at);
    if (done > 0) lseek64(fd, at + done, SEEK_SET);
    return done;
}

static int synced(int fd, int (*real)(int))
{
    const char *path = watched_fd(fd);
    if (!path) return real(fd);
    int error = fault(SYNC, path), result = -1;
    pthread_mutex_lock(&lock);
    /* After a failed fsync the kernel takes the pages for clean: no later one writes them. */
    if (!error && (result = real(fd))) error = errno;
    put(error ? FAILED_SYNC : SYNC, path, inode_of(fd), 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int fsync(int fd) { REAL(fsync); return synced(fd, real); }
int fdatasync(int fd) { REAL(fdatasync); return synced(fd, real); }

int ftruncate64(int fd, off64_t size)
{
    REAL(ftruncate64);
    const char *path = watched_fd(fd);
    if (!path) return real(fd, size);
    if ((errno = fault(TRUNCATE, path))) return -1;
    pthread_mutex_lock(&lock);
    int result = real(fd, size), error = errno;
    if (!result) put(TRUNCATE, path, inode_of(fd), size, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int posix_fallocate64(int fd, off64_t at, off64_t size)
{
    REAL(posix_fallocate64);
    const char *path = watched_fd(fd);
    if (!path) return real(fd, at, size);
    int error = fault(ALLOCATE, path);
    if (error) return error;
    pthread_mutex_lock(&lock);
    error = real(fd, at, size);
    if (!error) put(ALLOCATE, path, inode_of(fd), at, NULL, size);
    pthread_mutex_unlock(&lock);
    return error;
}

int posix_fallocate(int fd, off_t at, off_t size) { return posix_fallocate64(fd, at, size); }

/* -- what changes a directory --------------------------------------------------------------- */

int unlink(const char *path)
{
    REAL(unlink);
    if (!watched(path)) return real(path);
    if ((errno = fault(UNLINK, path))) return -1;
    pthread_mutex_lock(&lock);
    int result = real(path), error = errno;
    if (!result) put(UNLINK, path, 0, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int rename(const char *path, const char *to)
{
    REAL(rename);
    if (!watched(path) || !watched(to)) return real(path, to);
    if ((errno = fault(RENAME, path))) return -1;
    pthread_mutex_lock(&lock);
    int result = real(path, to), error = errno;
    if (!result) put(RENAME, path, 0, 0, to + root_length, strlen(to + root_length));
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    if (!watched(path)) return real(path, mode);
    if ((errno = fault(MKDIR, path))) return -1;
    pthread_mutex_lock(&lock);
    int result = real(path, mode), error = errno;
    if (!result) put(MKDIR, path, 0, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

/* -- what is not recorded must not happen --------------------------------------------------- */

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev);
    if (watched_fd(fd)) die("writev is not recorded", watched_fd(fd));
    return real(fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    REAL(pwritev);
    if (watched_fd(fd)) die("pwritev is not recorded", watched_fd(fd));
    return real(fd, parts, count, at);
}

int unlinkat(int folder, const char *path, int flags)
{
    REAL(unlinkat);
    if (watched(path)) die("unlinkat is not recorded", path);
    return real(folder, path, flags);
}

int rmdir(const char *path)
{
    REAL(rmdir);
    if (watched(path)) die("rmdir is not recorded", path);
    return real(path);
}

int link(const char *path, const char *to)
{
    REAL(link);
    if (watched(to)) die("link is not recorded", to);
    return real(path, to);
}

static void *mapped(void *at, size_t size, int access, int flags, int fd, off64_t from)
{
    REAL(mmap64);
    const char *path = watched_fd(fd);
    /* The index of SQLite's log is made anew by whoever opens the file first. */
    if (path && (access & PROT_WRITE) && (flags & MAP_SHARED) && !strstr(path, "-shm"))
        die("mmap is not recorded", path);
    return real(at, size, access, flags, fd, from);
}

void *mmap64(void *at, size_t size, int access, int flags, int fd, off64_t from) { return mapped(at, size, access, flags, fd, from); }
void *mmap(void *at, size_t size, int access, int flags, int fd, off_t from) { return mapped(at, size, access, flags, fd, from); }

/* -- the wall clock ------------------------------------------------------------------------- */

static void moved(struct timespec *now)
{
    int64_t ns = now->tv_sec * 1000000000LL + now->tv_nsec + control->clock_offset_ns;
    now->tv_sec = ns / 1000000000LL;
    now->tv_nsec = ns % 1000000000LL;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    REAL(clock_gettime);
    int result = real(clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) moved(now);
    return result;
}

int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
