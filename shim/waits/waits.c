/*
 * A preload library for `userdma check --races`: tells the shim (shim/check/events.c) when a thread has waited for
 * other threads or programs, and when it creates a thread. It interposes waits without RDMA: reading from sockets and
 * pipes, locks, condition variables, semaphores, barriers, joins, and ends of processes.
 *
 * Not seen: stdio (fgets, fread …), which reads inside the C library; message queues and signals.
 *
 * Locks of libibverbs, the rxe provider, librdmacm and our libraries do not count: they do not order the program's
 * accesses.
 */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/*
 * Of the shim (shim/check/events.c). Absent if the shim is not loaded. `fd`: the descriptor from which the thread read;
 * -1: the wait had none.
 */
__attribute__((weak, visibility("default"))) void userdma_waited(int fd);
__attribute__((weak, visibility("default"))) void userdma_creates_thread(void);

static void waited(int fd)
{
    const int saved = errno;
    if (userdma_waited)
        userdma_waited(fd);
    errno = saved;
}

/* Functions that the C library's headers do not declare, or only the headers of newer ones. */
int pthread_clockjoin_np(pthread_t thread, void **result, clockid_t clock, const struct timespec *deadline);
int pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *deadline);
int pthread_rwlock_clockrdlock(pthread_rwlock_t *lock, clockid_t clock, const struct timespec *deadline);
int pthread_rwlock_clockwrlock(pthread_rwlock_t *lock, clockid_t clock, const struct timespec *deadline);
int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock,
                           const struct timespec *deadline);
int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *deadline);
EXPORT ssize_t __read_chk(int fd, void *buffer, size_t count, size_t buffer_size);
EXPORT ssize_t __recv_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags);
EXPORT ssize_t __recvfrom_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags, struct sockaddr *from,
                              socklen_t *length);

#define INTERPOSED(X)                                                                                                  \
    X(pthread_create) X(pthread_join) X(pthread_tryjoin_np) X(pthread_timedjoin_np) X(pthread_clockjoin_np)            \
    X(pthread_mutex_lock) X(pthread_mutex_trylock) X(pthread_mutex_timedlock) X(pthread_mutex_clocklock)               \
    X(pthread_spin_lock) X(pthread_spin_trylock) X(pthread_rwlock_rdlock) X(pthread_rwlock_wrlock)                     \
    X(pthread_rwlock_tryrdlock) X(pthread_rwlock_timedrdlock) X(pthread_rwlock_clockrdlock)                            \
    X(pthread_rwlock_trywrlock) X(pthread_rwlock_timedwrlock) X(pthread_rwlock_clockwrlock) X(pthread_cond_wait)       \
    X(pthread_cond_timedwait) X(pthread_cond_clockwait) X(pthread_barrier_wait) X(sem_wait) X(sem_trywait)             \
    X(sem_timedwait) X(sem_clockwait) X(thrd_create) X(thrd_join) X(mtx_lock) X(mtx_trylock) X(mtx_timedlock)          \
    X(cnd_wait) X(cnd_timedwait) X(wait) X(waitpid) X(wait3) X(wait4) X(waitid) X(system) X(pclose) X(read)            \
    X(__read_chk) X(readv) X(recv) X(__recv_chk) X(recvfrom) X(__recvfrom_chk) X(recvmsg) X(accept) X(accept4)         \
    X(recvmmsg) X(eventfd_read)

/* The next library's functions. */
static struct {
#define X(name) __typeof__(&name) name;
    INTERPOSED(X)
#undef X
} next;

static void *find_next(const char *name)
{
    void *found = NULL;
    /* These have two versions. Before glibc 2.36, dlsym finds the old one. */
    if (strcmp(name, "pthread_cond_wait") == 0 || strcmp(name, "pthread_cond_timedwait") == 0)
        found = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
    return found ? found : dlsym(RTLD_NEXT, name);
}

#ifdef DLFO_STRUCT_HAS_EH_DBASE /* the headers of glibc 2.35 and newer */
/* NULL: the C library is older. */
static __typeof__(&_dl_find_object) find_object;
#endif

/*
 * When libraries are initialised, because dlsym takes the loader's lock. A thread in dlopen holds this lock, and may
 * wait in a library's constructor for another thread.
 */
__attribute__((constructor(101))) static void look_up(void)
{
#ifdef DLFO_STRUCT_HAS_EH_DBASE
    find_object = (__typeof__(find_object))dlsym(RTLD_DEFAULT, "_dl_find_object");
#endif
#define X(name) next.name = (__typeof__(&name))find_next(#name);
    INTERPOSED(X)
#undef X
}

/* Another library's constructor may call before `look_up` has run. */
#define NEXT(name) (next.name ? next.name : (__typeof__(&name))find_next(#name))

/* ---- callers ---- */

#define MAX_CALLERS 1024
/* A cache by return address. An entry: the address shifted left by one; bit 0: the address is in an RDMA library. */
static uintptr_t callers[MAX_CALLERS];

static bool begins_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

/* `path`: NULL if it is not known. */
static bool is_rdma_library(const char *path)
{
    if (!path)
        return false;
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    return begins_with(name, "libibverbs") || begins_with(name, "librxe") || begins_with(name, "librdmacm") ||
           begins_with(name, "libuserdma");
}

/* The path of the library with this address; NULL: none. Without the loader's lock (see look_up), if possible. */
static const char *library_of(void *address)
{
#ifdef DLFO_STRUCT_HAS_EH_DBASE
    struct dl_find_object found;
    if (find_object)
        return find_object(address, &found) == 0 ? found.dlfo_link_map->l_name : NULL;
#endif
    Dl_info info;
    return dladdr(address, &info) ? info.dli_fname : NULL;
}

static bool is_in_rdma_library(void *address)
{
    const uintptr_t caller = (uintptr_t)address << 1;
    uintptr_t *slot = &callers[((uintptr_t)address >> 2) % MAX_CALLERS];
    const uintptr_t known = __atomic_load_n(slot, __ATOMIC_RELAXED);
    if ((known & ~(uintptr_t)1) == caller)
        return known & 1;
    const bool is_rdma = is_rdma_library(library_of(address));
    __atomic_store_n(slot, caller | is_rdma, __ATOMIC_RELAXED);
    return is_rdma;
}

/*
 * Returns the result of a call that locks or joins. If it succeeded, the thread has waited. EOWNERDEAD: it locked a
 * robust mutex whose owner had ended.
 */
#define RETURN_LOCKED(call)                                                                                            \
    do {                                                                                                               \
        const int answer = (call);                                                                                     \
        if ((answer == 0 || answer == EOWNERDEAD) && !is_in_rdma_library(__builtin_return_address(0)))                 \
            waited(-1);                                                                                                \
        return answer;                                                                                                 \
    } while (0)

/* For a condition variable: whatever the result, the mutex was locked again. */
#define RETURN_SIGNALED(call)                                                                                          \
    do {                                                                                                               \
        const int answer = (call);                                                                                     \
        if (!is_in_rdma_library(__builtin_return_address(0)))                                                          \
            waited(-1);                                                                                                \
        return answer;                                                                                                 \
    } while (0)

/* ---- threads ---- */

EXPORT int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *),
                          void *argument)
{
    if (userdma_creates_thread)
        userdma_creates_thread();
    return NEXT(pthread_create)(thread, attributes, function, argument);
}

EXPORT int pthread_join(pthread_t thread, void **result)
{
    RETURN_LOCKED(NEXT(pthread_join)(thread, result));
}

EXPORT int pthread_tryjoin_np(pthread_t thread, void **result)
{
    RETURN_LOCKED(NEXT(pthread_tryjoin_np)(thread, result));
}

EXPORT int pthread_timedjoin_np(pthread_t thread, void **result, const struct timespec *deadline)
{
    RETURN_LOCKED(NEXT(pthread_timedjoin_np)(thread, result, deadline));
}

EXPORT int pthread_clockjoin_np(pthread_t thread, void **result, clockid_t clock, const struct timespec *deadline)
{
    RETURN_LOCKED(NEXT(pthread_clockjoin_np)(thread, result, clock, deadline));
}

EXPORT int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    RETURN_LOCKED(NEXT(pthread_mutex_lock)(mutex));
}

EXPORT int pthread_mutex_trylock(pthread_mutex_t *mutex)
{
    RETURN_LOCKED(NEXT(pthread_mutex_trylock)(mutex));
}

EXPORT int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *deadline)
{
    RETURN_LOCKED(NEXT(pthread_mutex_timedlock)(mutex, deadline));
}

EXPORT int pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *deadline)
{
    RETURN_LOCKED(NEXT(pthread_mutex_clocklock)(mutex, clock, deadline));
}

EXPORT int pthread_spin_lock(pthread_spinlock_t *lock)
{
    RETURN_LOCKED(NEXT(pthread_spin_lock)(lock));
}

EXPORT int pthread_spin_trylock(pthread_spinlock_t *lock)
{
    RETURN_LOCKED(NEXT(pthread_spin_trylock)(lock));
}

EXPORT int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
    RETURN_LOCKED(NEXT(pthread_rwlock_rdlock)(lock));
}

EXPORT int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
    RETURN_LOCKED(NEXT(pthread_rwlock_wrlock)(lock));
}

EXPORT int pthread_rwlock_tryrdlock(pthread_rwlock_t *lock)
{
    RETURN_LOCKED(NEXT(pthread_rwlock_tryrdlock)(lock));
}

EXPORT int pthread_rwlock_timedrdlock(pthread_rwlock_t *lock, const struct timespec *deadline)
{
    RETURN_LOCKED(NEXT(pthread_rwlock_timedrdlock)(lock, deadline));
}

EXPORT int pthread_rwlock_clockrdlock(pthread_rwlock_t *lock, clockid_t clock, const struct timespec *deadline)
{
    RETURN_LOCKED(NEXT(pthread_rwlock_clockrdlock)(lock, clock, deadline));
}

EXPORT int pthread_rwlock_trywrlock(pthread_rwlock_t *lock)
{
    RETURN_LOCKED(NEXT(pthread_rwlock_trywrlock)(lock));
}

EXPORT int pthread_rwlock_timedwrlock(pthread_rwlock_t *lock, const struct timespec *deadline)
{
    RETURN_LOCKED(NEXT(pthread_rwlock_timedwrlock)(lock, deadline));
}

EXPORT int pthread_rwlock_clockwrlock(pthread_rwlock_t *lock, clockid_t clock, const struct timespec *deadline)
{
    RETURN_LOCKED(NEXT(pthread_rwlock_clockwrlock)(lock, clock, deadline));
}

EXPORT int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    RETURN_SIGNALED(NEXT(pthread_cond_wait)(condition, mutex));
}

EXPORT int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *deadline)
{
    RETURN_SIGNALED(NEXT(pthread_cond_timedwait)(condition, mutex, deadline));
}

EXPORT int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock,
                                  const struct timespec *deadline)
{
    RETURN_SIGNALED(NEXT(pthread_cond_clockwait)(condition, mutex, clock, deadline));
}

EXPORT int pthread_barrier_wait(pthread_barrier_t *barrier)
{
    /* For any result: one thread of each round gets PTHREAD_BARRIER_SERIAL_THREAD. */
    const int result = NEXT(pthread_barrier_wait)(barrier);
    waited(-1);
    return result;
}

EXPORT int sem_wait(sem_t *semaphore)
{
    RETURN_LOCKED(NEXT(sem_wait)(semaphore));
}

EXPORT int sem_trywait(sem_t *semaphore)
{
    RETURN_LOCKED(NEXT(sem_trywait)(semaphore));
}

EXPORT int sem_timedwait(sem_t *semaphore, const struct timespec *deadline)
{
    RETURN_LOCKED(NEXT(sem_timedwait)(semaphore, deadline));
}

EXPORT int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *deadline)
{
    RETURN_LOCKED(NEXT(sem_clockwait)(semaphore, clock, deadline));
}

/* C11 functions do not call the functions above. `thrd_success` is 0. */

EXPORT int thrd_create(thrd_t *thread, thrd_start_t function, void *argument)
{
    if (userdma_creates_thread)
        userdma_creates_thread();
    return NEXT(thrd_create)(thread, function, argument);
}

EXPORT int thrd_join(thrd_t thread, int *result)
{
    RETURN_LOCKED(NEXT(thrd_join)(thread, result));
}

EXPORT int mtx_lock(mtx_t *mutex)
{
    RETURN_LOCKED(NEXT(mtx_lock)(mutex));
}

EXPORT int mtx_trylock(mtx_t *mutex)
{
    RETURN_LOCKED(NEXT(mtx_trylock)(mutex));
}

EXPORT int mtx_timedlock(mtx_t *mutex, const struct timespec *deadline)
{
    RETURN_LOCKED(NEXT(mtx_timedlock)(mutex, deadline));
}

EXPORT int cnd_wait(cnd_t *condition, mtx_t *mutex)
{
    RETURN_SIGNALED(NEXT(cnd_wait)(condition, mutex));
}

EXPORT int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *deadline)
{
    RETURN_SIGNALED(NEXT(cnd_timedwait)(condition, mutex, deadline));
}

/* ---- processes ---- */

/* `pid`: result of a wait for a child. With WNOHANG the thread has waited only if it got the state of a child. */
static pid_t waited_for_child(pid_t pid, int options)
{
    if (pid > 0 || !(options & WNOHANG))
        waited(-1);
    return pid;
}

EXPORT pid_t wait(int *status)
{
    return waited_for_child(NEXT(wait)(status), 0);
}

EXPORT pid_t waitpid(pid_t child, int *status, int options)
{
    return waited_for_child(NEXT(waitpid)(child, status, options), options);
}

EXPORT pid_t wait3(int *status, int options, struct rusage *usage)
{
    return waited_for_child(NEXT(wait3)(status, options, usage), options);
}

EXPORT pid_t wait4(pid_t child, int *status, int options, struct rusage *usage)
{
    return waited_for_child(NEXT(wait4)(child, status, options, usage), options);
}

EXPORT int waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    const int result = NEXT(waitid)(type, id, info, options);
    pid_t child = -1;
    if (result == 0)
        child = info ? info->si_pid : 1; /* without `info` a child may have ended */
    waited_for_child(child, options);
    return result;
}

/* These wait inside the C library. */

EXPORT int system(const char *command)
{
    const int status = NEXT(system)(command);
    /* ECHILD: the program ignores SIGCHLD. The child has ended too. */
    if (command && (status != -1 || errno == ECHILD))
        waited(-1);
    return status;
}

EXPORT int pclose(FILE *stream)
{
    const int status = NEXT(pclose)(stream);
    if (status != -1 || errno == ECHILD)
        waited(-1);
    return status;
}

/* ---- sockets and pipes ---- */

/* Returns the result of a call that reads from `fd`. If the result is no error, the thread has waited. */
#define RETURN_RECEIVED(type, fd, call)                                                                                \
    do {                                                                                                               \
        const type result = (call);                                                                                    \
        if (result >= 0)                                                                                               \
            waited(fd);                                                                                                \
        return result;                                                                                                 \
    } while (0)

EXPORT ssize_t read(int fd, void *buffer, size_t count)
{
    RETURN_RECEIVED(ssize_t, fd, NEXT(read)(fd, buffer, count));
}

ssize_t __read_chk(int fd, void *buffer, size_t count, size_t buffer_size)
{
    RETURN_RECEIVED(ssize_t, fd, NEXT(__read_chk)(fd, buffer, count, buffer_size));
}

EXPORT ssize_t readv(int fd, const struct iovec *vector, int count)
{
    RETURN_RECEIVED(ssize_t, fd, NEXT(readv)(fd, vector, count));
}

EXPORT ssize_t recv(int fd, void *buffer, size_t count, int flags)
{
    RETURN_RECEIVED(ssize_t, fd, NEXT(recv)(fd, buffer, count, flags));
}

ssize_t __recv_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags)
{
    RETURN_RECEIVED(ssize_t, fd, NEXT(__recv_chk)(fd, buffer, count, buffer_size, flags));
}

EXPORT ssize_t recvfrom(int fd, void *buffer, size_t count, int flags, struct sockaddr *from, socklen_t *length)
{
    RETURN_RECEIVED(ssize_t, fd, NEXT(recvfrom)(fd, buffer, count, flags, from, length));
}

ssize_t __recvfrom_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags, struct sockaddr *from,
                       socklen_t *length)
{
    RETURN_RECEIVED(ssize_t, fd, NEXT(__recvfrom_chk)(fd, buffer, count, buffer_size, flags, from, length));
}

EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    RETURN_RECEIVED(ssize_t, fd, NEXT(recvmsg)(fd, message, flags));
}

EXPORT int accept(int fd, struct sockaddr *from, socklen_t *length)
{
    RETURN_RECEIVED(int, fd, NEXT(accept)(fd, from, length));
}

EXPORT int accept4(int fd, struct sockaddr *from, socklen_t *length, int flags)
{
    RETURN_RECEIVED(int, fd, NEXT(accept4)(fd, from, length, flags));
}

EXPORT int recvmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags, struct timespec *timeout)
{
    RETURN_RECEIVED(int, fd, NEXT(recvmmsg)(fd, messages, count, flags, timeout));
}

EXPORT int eventfd_read(int fd, eventfd_t *value)
{
    RETURN_RECEIVED(int, fd, NEXT(eventfd_read)(fd, value));
}
