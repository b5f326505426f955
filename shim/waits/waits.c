/*
 * A preload library for `userdma check --races`: tells the shim (shim/check/events.c) when a thread has waited for
 * other threads or programs, and when it creates a thread. It interposes waits without RDMA: reading from sockets and
 * pipes, locks, condition variables, semaphores, barriers, joins, and ends of processes.
 *
 * Not seen: stdio (fgets, fread …), which reads inside the C library.
 *
 * Locks of libibverbs, the rxe provider, librdmacm and our libraries do not count: they do not order the program's
 * accesses.
 */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
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

/* Of the shim (shim/check/events.c). Absent if the shim is not loaded. */
__attribute__((weak, visibility("default"))) void userdma_waited(int fd);
__attribute__((weak, visibility("default"))) void userdma_creates_thread(void);

static void waited(int fd)
{
    const int saved = errno;
    if (userdma_waited)
        userdma_waited(fd);
    errno = saved;
}

/* The next library's function, looked up once. */
#define NEXT(name)                                                                                                     \
    ({                                                                                                                 \
        static __typeof__(&name) next_##name;                                                                          \
        if (!__atomic_load_n(&next_##name, __ATOMIC_RELAXED))                                                          \
            __atomic_store_n(&next_##name, (__typeof__(&name))dlsym(RTLD_NEXT, #name), __ATOMIC_RELAXED);              \
        next_##name;                                                                                                   \
    })

/* NEXT for pthread_cond_wait and _timedwait, which have two versions: dlsym finds the old one in some C libraries. */
#define NEXT_CONDITION(name)                                                                                           \
    ({                                                                                                                 \
        static __typeof__(&name) next_##name;                                                                          \
        if (!__atomic_load_n(&next_##name, __ATOMIC_RELAXED)) {                                                        \
            void *found = dlvsym(RTLD_NEXT, #name, "GLIBC_2.3.2");                                                     \
            found = found ? found : dlsym(RTLD_NEXT, #name);                                                           \
            __atomic_store_n(&next_##name, (__typeof__(&name))found, __ATOMIC_RELAXED);                                \
        }                                                                                                              \
        next_##name;                                                                                                   \
    })

/* ---- callers ---- */

#define MAX_CALLERS 1024
/* A cache by return address. An entry: the address shifted left by one; bit 0: the address is in an RDMA library. */
static uintptr_t callers[MAX_CALLERS];

static bool is_rdma_library(const char *path)
{
    const char *name = path ? strrchr(path, '/') : NULL;
    name = name ? name + 1 : path;
    return name && (strncmp(name, "libibverbs", 10) == 0 || strncmp(name, "librxe", 6) == 0 ||
                    strncmp(name, "librdmacm", 9) == 0 || strncmp(name, "libuserdma", 10) == 0);
}

static bool is_in_rdma_library(void *address)
{
    const uintptr_t caller = (uintptr_t)address << 1;
    uintptr_t *slot = &callers[((uintptr_t)address >> 2) % MAX_CALLERS];
    const uintptr_t known = __atomic_load_n(slot, __ATOMIC_RELAXED);
    if ((known & ~(uintptr_t)1) == caller)
        return known & 1;
    Dl_info info;
    const bool is_rdma = dladdr(address, &info) && is_rdma_library(info.dli_fname);
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

int pthread_clockjoin_np(pthread_t thread, void **result, clockid_t clock, const struct timespec *deadline);
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

int pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *deadline);
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

int pthread_rwlock_clockrdlock(pthread_rwlock_t *lock, clockid_t clock, const struct timespec *deadline);
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

int pthread_rwlock_clockwrlock(pthread_rwlock_t *lock, clockid_t clock, const struct timespec *deadline);
EXPORT int pthread_rwlock_clockwrlock(pthread_rwlock_t *lock, clockid_t clock, const struct timespec *deadline)
{
    RETURN_LOCKED(NEXT(pthread_rwlock_clockwrlock)(lock, clock, deadline));
}

EXPORT int pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *mutex)
{
    RETURN_SIGNALED(NEXT_CONDITION(pthread_cond_wait)(condition, mutex));
}

EXPORT int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *deadline)
{
    RETURN_SIGNALED(NEXT_CONDITION(pthread_cond_timedwait)(condition, mutex, deadline));
}

int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock,
                           const struct timespec *deadline);
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

int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *deadline);
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

EXPORT ssize_t __read_chk(int fd, void *buffer, size_t count, size_t buffer_size);
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

EXPORT ssize_t __recv_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags);
ssize_t __recv_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags)
{
    RETURN_RECEIVED(ssize_t, fd, NEXT(__recv_chk)(fd, buffer, count, buffer_size, flags));
}

EXPORT ssize_t recvfrom(int fd, void *buffer, size_t count, int flags, struct sockaddr *from, socklen_t *length)
{
    RETURN_RECEIVED(ssize_t, fd, NEXT(recvfrom)(fd, buffer, count, flags, from, length));
}

EXPORT ssize_t __recvfrom_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags, struct sockaddr *from,
                              socklen_t *length);
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
