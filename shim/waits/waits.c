/*
 * A preload library for `userdma check`. It interposes waits without RDMA: reading from sockets and pipes, polls of
 * descriptors, locks, condition variables, semaphores, message queues, barriers, joins, ends of processes, signals, and
 * sleeps. It tells the shim
 *
 *   what a thread waits for, when it is about to block (shim/check/waiting.c): a call that need not wait costs a few
 *   nanoseconds;
 *   for `--races` (shim/check/events.c), when a thread has waited for other threads or programs, and when it creates a
 *   thread.
 *
 * Not seen: stdio (fgets, fread …), which reads inside the C library; writes to what is full; locks of files.
 *
 * Locks of libibverbs, the rxe provider, librdmacm and our libraries do not count: they do not order the program's
 * accesses.
 */
#define _GNU_SOURCE
#undef _FORTIFY_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <mqueue.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#include "../clockwaits.h"
#include "../protocol.h"

#define EXPORT __attribute__((visibility("default")))
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/*
 * Of the shim (shim/check/events.c). Absent if the shim is not loaded. `fd`: the descriptor from which the thread read;
 * -1: the wait had none.
 */
__attribute__((weak, visibility("default"))) void userdma_waited(int fd);
__attribute__((weak, visibility("default"))) void userdma_creates_thread(void);

/* Of the shim (shim/check/check.h). */
__attribute__((weak, visibility("default"))) void *userdma_wait_begins(uint32_t kind, uint64_t object, uint32_t owner,
                                                                       uint32_t flags, const void *caller,
                                                                       bool is_certain);
__attribute__((weak, visibility("default"))) void userdma_wait_ends(void *wait);
__attribute__((weak, visibility("default"))) void *userdma_sleep_begins(const void *caller);
__attribute__((weak, visibility("default"))) void userdma_sleep_ends(void *sleep);
__attribute__((weak, visibility("default"))) void userdma_wait_owner(void *wait, uint32_t owner);
__attribute__((weak, visibility("default"))) void userdma_wait_descriptors(void *wait, const int *fds, uint32_t count);
__attribute__((weak, visibility("default"))) void userdma_looked(void);
__attribute__((weak, visibility("default"))) void userdma_interrupted(const char *function);
__attribute__((weak, visibility("default"))) void userdma_signals(const void *object, const void *caller);

/*
 * Of a clock that skips (shim/clock/locks.c): the next wait of this thread has no deadline, whatever its time limit is.
 */
__attribute__((weak, visibility("default"))) void userdma_clock_looks(void);

/* Races are searched, or recorded: the shim wants to know when a thread has waited. */
static bool tells_waits;

static void tell_waited(int fd)
{
    const int saved = errno;
    userdma_waited(fd);
    errno = saved;
}

static inline void waited(int fd)
{
    if (UNLIKELY(tells_waits))
        tell_waited(fd);
}

/* Functions that the C library's headers do not declare, or only the headers of newer ones. */
EXPORT ssize_t __read_chk(int fd, void *buffer, size_t count, size_t buffer_size);
EXPORT ssize_t __recv_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags);
EXPORT ssize_t __recvfrom_chk(int fd, void *buffer, size_t count, size_t buffer_size, int flags, struct sockaddr *from,
                              socklen_t *length);
EXPORT int epoll_pwait2(int fd, struct epoll_event *events, int most, const struct timespec *timeout, const sigset_t *mask);

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
    X(recvmmsg) X(eventfd_read) X(pthread_cond_signal) X(pthread_cond_broadcast) X(cnd_signal) X(cnd_broadcast)        \
    X(sem_post) X(poll) X(ppoll) X(select) X(pselect) X(epoll_wait) X(epoll_pwait) X(epoll_pwait2)                     \
    X(mq_receive) X(mq_timedreceive) X(mq_send) X(mq_timedsend) X(msgrcv) X(msgsnd) X(semop) X(semtimedop)             \
    X(sigwait) X(sigwaitinfo) X(sigtimedwait) X(sigsuspend) X(pause)                                                   \
    X(nanosleep) X(clock_nanosleep) X(usleep) X(sleep) X(thrd_sleep)

/* The next library's functions. */
static struct {
#define X(name) __typeof__(&name) name;
    INTERPOSED(X)
#undef X
} next;

static void *find_next(const char *name)
{
    void *const found = dlsym(RTLD_NEXT, name);
#ifdef __x86_64__
    /*
     * These have two versions. Before glibc 2.36, dlsym finds the old one. A function of another preload library is
     * kept.
     */
    if (strncmp(name, "pthread_cond_", 13) == 0 && found == dlvsym(RTLD_NEXT, name, "GLIBC_2.2.5")) {
        void *const newer = dlvsym(RTLD_NEXT, name, "GLIBC_2.3.2");
        return newer ? newer : found;
    }
#endif
    return found;
}

#ifdef DLFO_STRUCT_HAS_EH_DBASE /* the headers of glibc 2.35 and newer */
/* NULL: the C library is older. */
static __typeof__(&_dl_find_object) find_object;
#endif

/*
 * glibc's __libc_single_threaded; NULL: it is older. With one thread its locks need no atomic operations, but its
 * attempts to lock have them.
 */
static const char *single_threaded;

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
    single_threaded = dlsym(RTLD_DEFAULT, "__libc_single_threaded");
    const char *stacks = getenv(USERDMA_ENV_STACKS);
    tells_waits = userdma_waited && stacks && (strcmp(stacks, "2") == 0 || strcmp(stacks, "3") == 0);
}

/* Another library's constructor may call before `look_up` has run. */
#define NEXT(name) (UNLIKELY(!next.name) ? (__typeof__(&name))find_next(#name) : next.name)

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
        if (UNLIKELY(tells_waits) && (answer == 0 || answer == EOWNERDEAD) &&                                                    \
            !is_in_rdma_library(__builtin_return_address(0)))                                                          \
            waited(-1);                                                                                                \
        return answer;                                                                                                 \
    } while (0)

/* For a condition variable: whatever the result, the mutex was locked again. */
#define RETURN_SIGNALED(call)                                                                                          \
    do {                                                                                                               \
        const int answer = (call);                                                                                     \
        if (UNLIKELY(tells_waits) && !is_in_rdma_library(__builtin_return_address(0)))                                           \
            waited(-1);                                                                                                \
        return answer;                                                                                                 \
    } while (0)

/* ---- what a thread waits for ---- */

#define CALLER __builtin_return_address(0)

/* Not inlined: a call that need not wait should need no stack. */
#define SLOW __attribute__((noinline))

/* The wait of a call of the program that blocks. NULL: it is not noted, as one of our libraries or of libibverbs. */
static void *begins(uint32_t kind, const void *object, uint32_t owner, uint32_t flags, void *caller)
{
    if (!userdma_wait_begins || is_in_rdma_library(caller))
        return NULL;
    return userdma_wait_begins(kind, (uint64_t)(uintptr_t)object, owner, flags, caller, true);
}

static inline void ends(void *wait)
{
    if (wait)
        userdma_wait_ends(wait);
}

/* The result of `call`, which waits. */
#define NOTED(kind, object, owner, flags, call)                                                                        \
    ({                                                                                                                 \
        void *const mark = begins(USERDMA_WAIT_##kind, object, owner, flags, CALLER);                                  \
        const __typeof__(call) noted = (call);                                                                         \
        ends(mark);                                                                                                    \
        noted;                                                                                                         \
    })

/* As NOTED, but nothing is noted if `attempt`, which does not wait, has another result than `refused`. */
#define TRIED(kind, object, owner, flags, attempt, refused, call)                                                      \
    ({                                                                                                                 \
        int tried = (attempt);                                                                                         \
        if (tried == (refused))                                                                                        \
            tried = NOTED(kind, object, owner, flags, call);                                                           \
        tried;                                                                                                         \
    })

/* glibc's layouts, the same on all architectures of 64 bits. */
#define MUTEX_OWNER(mutex) ((uint32_t)(mutex)->__data.__owner)
#define MUTEX_FLAGS(mutex) ((mutex)->__data.__kind & 128 ? USERDMA_WAIT_FLAG_SHARED : 0)
#define RWLOCK_OWNER(lock) ((uint32_t)(lock)->__data.__cur_writer)
#define RWLOCK_FLAGS(lock) ((lock)->__data.__shared ? USERDMA_WAIT_FLAG_SHARED : 0)
#define CONDITION_FLAGS(condition) ((condition)->__data.__wrefs & 1 ? USERDMA_WAIT_FLAG_SHARED : 0)
/* struct new_sem: the value in 64 bits, then whether it is private. */
#define SEMAPHORE_FLAGS(semaphore) (((const int *)(semaphore))[2] != 0 ? USERDMA_WAIT_FLAG_SHARED : 0)
#define TIMED USERDMA_WAIT_FLAG_TIMED

/* Seconds after which a thread that waits for a lock looks again who has it. */
#define LOOK_SECONDS 1

/* The end of the next wait; returns the present time. */
static time_t next_look(struct timespec *until)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, until);
    until->tv_sec += LOOK_SECONDS;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* Attempts to get a lock before its thread waits: most locks are held briefly. */
#define SPINS 20

static inline void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/*
 * Returns the result of a lock that waits, after some attempts. `timed`: an expression that waits until `until`, after
 * which the owner may be another one; `endless`: the same without limit, for a clock that jumps. `owner`: an
 * expression.
 */
#define WAIT_LOCKED(kind, lock, owner, flags, caller, attempt, timed, endless)                                             \
    do {                                                                                                               \
        int locked = EBUSY;                                                                                            \
        for (int spins = 0; spins < SPINS && locked == EBUSY; spins++) {                                               \
            pause_briefly();                                                                                           \
            locked = (attempt);                                                                                        \
        }                                                                                                              \
        if (locked != EBUSY)                                                                                           \
            return locked;                                                                                             \
        void *const mark = begins(USERDMA_WAIT_##kind, lock, owner, flags, caller);                                    \
        struct timespec until;                                                                                         \
        locked = ETIMEDOUT;                                                                                            \
        while (mark && locked == ETIMEDOUT) {                                                                          \
            const time_t before = next_look(&until);                                                                   \
            if (userdma_clock_looks)                                                                                   \
                userdma_clock_looks();                                                                                 \
            locked = (timed);                                                                                          \
            userdma_wait_owner(mark, owner);                                                                           \
            if (locked == ETIMEDOUT && next_look(&until) == before)                                                    \
                break;                                                                                                 \
        }                                                                                                              \
        if (locked == ETIMEDOUT)                                                                                       \
            locked = (endless);                                                                                        \
        ends(mark);                                                                                                    \
        return locked;                                                                                                 \
    } while (0)

static SLOW int wait_for_mutex(pthread_mutex_t *mutex, void *caller)
{
    WAIT_LOCKED(MUTEX, mutex, MUTEX_OWNER(mutex), MUTEX_FLAGS(mutex), caller, NEXT(pthread_mutex_trylock)(mutex),
                NEXT(pthread_mutex_timedlock)(mutex, &until), NEXT(pthread_mutex_lock)(mutex));
}

static SLOW int wait_to_read(pthread_rwlock_t *lock, void *caller)
{
    WAIT_LOCKED(RWLOCK, lock, RWLOCK_OWNER(lock), RWLOCK_FLAGS(lock), caller, NEXT(pthread_rwlock_tryrdlock)(lock),
                NEXT(pthread_rwlock_timedrdlock)(lock, &until), NEXT(pthread_rwlock_rdlock)(lock));
}

static SLOW int wait_to_write(pthread_rwlock_t *lock, void *caller)
{
    WAIT_LOCKED(RWLOCK, lock, RWLOCK_OWNER(lock), RWLOCK_FLAGS(lock), caller, NEXT(pthread_rwlock_trywrlock)(lock),
                NEXT(pthread_rwlock_timedwrlock)(lock, &until), NEXT(pthread_rwlock_wrlock)(lock));
}

#define IS_FREE(mutex) (single_threaded && *single_threaded && (mutex)->__data.__lock == 0)

/* The result of `attempt`, or if the lock is not free, of `wait`. */
#define TRY_LOCK(attempt, wait)                                                                                        \
    ({                                                                                                                 \
        int tried = (attempt);                                                                                         \
        if (UNLIKELY(tried == EBUSY))                                                                                  \
            tried = (wait);                                                                                            \
        tried;                                                                                                         \
    })

/* The number of a thread of this process; 0: unknown, or it has ended. glibc makes the clock's number of it. */
static uint32_t thread_of(pthread_t thread)
{
    clockid_t clock;
    return pthread_getcpuclockid(thread, &clock) == 0 ? (uint32_t)~(clock >> 3) : 0;
}

#define THREAD(thread) (const void *)(uintptr_t)thread_of(thread)

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
    RETURN_LOCKED(TRIED(JOIN, THREAD(thread), 0, 0, NEXT(pthread_tryjoin_np)(thread, result), EBUSY,
                        NEXT(pthread_join)(thread, result)));
}

EXPORT int pthread_tryjoin_np(pthread_t thread, void **result)
{
    RETURN_LOCKED(NEXT(pthread_tryjoin_np)(thread, result));
}

EXPORT int pthread_timedjoin_np(pthread_t thread, void **result, const struct timespec *deadline)
{
    RETURN_LOCKED(NOTED(JOIN, THREAD(thread), 0, TIMED, NEXT(pthread_timedjoin_np)(thread, result, deadline)));
}

EXPORT int pthread_clockjoin_np(pthread_t thread, void **result, clockid_t clock, const struct timespec *deadline)
{
    RETURN_LOCKED(NOTED(JOIN, THREAD(thread), 0, TIMED, NEXT(pthread_clockjoin_np)(thread, result, clock, deadline)));
}

EXPORT int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    if (IS_FREE(mutex))
        RETURN_LOCKED(NEXT(pthread_mutex_lock)(mutex));
    RETURN_LOCKED(TRY_LOCK(NEXT(pthread_mutex_trylock)(mutex), wait_for_mutex(mutex, CALLER)));
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
    RETURN_LOCKED(TRY_LOCK(NEXT(pthread_rwlock_tryrdlock)(lock), wait_to_read(lock, CALLER)));
}

EXPORT int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
    RETURN_LOCKED(TRY_LOCK(NEXT(pthread_rwlock_trywrlock)(lock), wait_to_write(lock, CALLER)));
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
    RETURN_SIGNALED(NOTED(CONDITION, condition, 0, CONDITION_FLAGS(condition), NEXT(pthread_cond_wait)(condition, mutex)));
}

EXPORT int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *deadline)
{
    RETURN_SIGNALED(
        NOTED(CONDITION, condition, 0, TIMED, NEXT(pthread_cond_timedwait)(condition, mutex, deadline)));
}

EXPORT int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock,
                                  const struct timespec *deadline)
{
    RETURN_SIGNALED(
        NOTED(CONDITION, condition, 0, TIMED, NEXT(pthread_cond_clockwait)(condition, mutex, clock, deadline)));
}

/* glibc's struct pthread_barrier: in, current_round, count, shared, out. */
#define BARRIER_FLAGS(barrier) (((const int *)(barrier))[3] != 0 ? USERDMA_WAIT_FLAG_SHARED : 0)

EXPORT int pthread_barrier_wait(pthread_barrier_t *barrier)
{
    /* For any result: one thread of each round gets PTHREAD_BARRIER_SERIAL_THREAD. */
    const int result = NOTED(BARRIER, barrier, 0, BARRIER_FLAGS(barrier), NEXT(pthread_barrier_wait)(barrier));
    waited(-1);
    return result;
}

EXPORT int sem_wait(sem_t *semaphore)
{
    if (NEXT(sem_trywait)(semaphore) != 0 && errno == EAGAIN)
        RETURN_LOCKED(NOTED(SEMAPHORE, semaphore, 0, SEMAPHORE_FLAGS(semaphore), NEXT(sem_wait)(semaphore)));
    RETURN_LOCKED(0);
}

EXPORT int sem_trywait(sem_t *semaphore)
{
    RETURN_LOCKED(NEXT(sem_trywait)(semaphore));
}

EXPORT int sem_timedwait(sem_t *semaphore, const struct timespec *deadline)
{
    RETURN_LOCKED(NOTED(SEMAPHORE, semaphore, 0, TIMED, NEXT(sem_timedwait)(semaphore, deadline)));
}

EXPORT int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *deadline)
{
    RETURN_LOCKED(NOTED(SEMAPHORE, semaphore, 0, TIMED, NEXT(sem_clockwait)(semaphore, clock, deadline)));
}

/* ---- signals ---- */

#define SIGNALS(object)                                                                                                \
    do {                                                                                                               \
        if (userdma_signals)                                                                                           \
            userdma_signals(object, CALLER);                                                                           \
    } while (0)

EXPORT int pthread_cond_signal(pthread_cond_t *condition)
{
    SIGNALS(condition);
    return NEXT(pthread_cond_signal)(condition);
}

EXPORT int pthread_cond_broadcast(pthread_cond_t *condition)
{
    SIGNALS(condition);
    return NEXT(pthread_cond_broadcast)(condition);
}

EXPORT int sem_post(sem_t *semaphore)
{
    SIGNALS(semaphore);
    return NEXT(sem_post)(semaphore);
}

EXPORT int cnd_signal(cnd_t *condition)
{
    SIGNALS(condition);
    return NEXT(cnd_signal)(condition);
}

EXPORT int cnd_broadcast(cnd_t *condition)
{
    SIGNALS(condition);
    return NEXT(cnd_broadcast)(condition);
}

/* ---- C11, whose functions do not call the functions above; `thrd_success` is 0 ---- */

/* glibc's mtx_t is its mutex. */
#define TRY_MTX(mutex)                                                                                                 \
    ({                                                                                                                 \
        const pthread_mutex_t *const same = (const pthread_mutex_t *)(mutex);                                          \
        TRIED(MUTEX, mutex, MUTEX_OWNER(same), 0, NEXT(mtx_trylock)(mutex), thrd_busy, NEXT(mtx_lock)(mutex));         \
    })

EXPORT int thrd_create(thrd_t *thread, thrd_start_t function, void *argument)
{
    if (userdma_creates_thread)
        userdma_creates_thread();
    return NEXT(thrd_create)(thread, function, argument);
}

EXPORT int thrd_join(thrd_t thread, int *result)
{
    RETURN_LOCKED(NOTED(JOIN, THREAD(thread), 0, 0, NEXT(thrd_join)(thread, result)));
}

EXPORT int mtx_lock(mtx_t *mutex)
{
    RETURN_LOCKED(TRY_MTX(mutex));
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
    RETURN_SIGNALED(NOTED(CONDITION, condition, 0, 0, NEXT(cnd_wait)(condition, mutex)));
}

EXPORT int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *deadline)
{
    RETURN_SIGNALED(NOTED(CONDITION, condition, 0, TIMED, NEXT(cnd_timedwait)(condition, mutex, deadline)));
}

/* ---- processes ---- */

/* A wait for the end of a child; -1 and such: of any. */
#define WAITS_FOR(child, options, call)                                                                                \
    ((options) & WNOHANG ? (call)                                                                                      \
                         : NOTED(CHILD, (const void *)(intptr_t)((child) > 0 ? (child) : 0), 0, 0, call))

/* `pid`: result of a wait for a child. With WNOHANG the thread has waited only if it got the state of a child. */
static pid_t waited_for_child(pid_t pid, int options)
{
    if (pid > 0 || !(options & WNOHANG))
        waited(-1);
    return pid;
}

EXPORT pid_t wait(int *status)
{
    return waited_for_child(NOTED(CHILD, NULL, 0, 0, NEXT(wait)(status)), 0);
}

EXPORT pid_t waitpid(pid_t child, int *status, int options)
{
    return waited_for_child(WAITS_FOR(child, options, NEXT(waitpid)(child, status, options)), options);
}

EXPORT pid_t wait3(int *status, int options, struct rusage *usage)
{
    return waited_for_child(WAITS_FOR(-1, options, NEXT(wait3)(status, options, usage)), options);
}

EXPORT pid_t wait4(pid_t child, int *status, int options, struct rusage *usage)
{
    return waited_for_child(WAITS_FOR(child, options, NEXT(wait4)(child, status, options, usage)), options);
}

EXPORT int waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    const int result = WAITS_FOR(type == P_PID ? (pid_t)id : -1, options, NEXT(waitid)(type, id, info, options));
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

/*
 * Whether a call waits is not known before: only its caller is noted, unless it `is_certain`. NULL: see `begins`.
 */
static void *begins_on(uint32_t kind, uint64_t object, const int *fds, uint32_t count, uint32_t flags, void *caller,
                       bool is_certain)
{
    if (!userdma_wait_begins || is_in_rdma_library(caller))
        return NULL;
    void *wait = userdma_wait_begins(kind, object, 0, flags, caller, is_certain);
    if (wait && count > 0)
        userdma_wait_descriptors(wait, fds, count);
    return wait;
}

/* Returns the result of a call that reads from `fd`. If the result is no error, the thread has waited. */
#define RETURN_RECEIVED(type, fd, call)                                                                                \
    do {                                                                                                               \
        const int descriptor = (fd);                                                                                   \
        void *const mark = begins_on(USERDMA_WAIT_DESCRIPTOR, 0, &descriptor, 1, 0, CALLER, false);                    \
        const type result = (call);                                                                                    \
        ends(mark);                                                                                                    \
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

/* ---- polls of descriptors ---- */

/* Descriptors that are noted. */
#define MAX_NOTED USERDMA_WAIT_TABLE_DESCRIPTORS

static void looked(void *caller)
{
    if (userdma_looked && !is_in_rdma_library(caller))
        userdma_looked();
}

/* The result of a poll by `function`, whose wait is `mark`: it tells whether a signal has ended it. */
#define POLLED(function, arguments)                                                                                    \
    ({                                                                                                                 \
        const int result = NEXT(function) arguments;                                                                   \
        ends(mark);                                                                                                    \
        if (UNLIKELY(result < 0 && errno == EINTR) && mark && userdma_interrupted)                                     \
            userdma_interrupted(#function);                                                                            \
        result;                                                                                                        \
    })

/* The wait of a poll for `count` descriptors. `milliseconds`: −1: without limit. */
static void *begins_poll(struct pollfd *polled, nfds_t count, int milliseconds, void *caller)
{
    int fds[MAX_NOTED];
    for (nfds_t i = 0; i < count && i < MAX_NOTED; i++)
        fds[i] = polled[i].fd;
    return begins_on(USERDMA_WAIT_DESCRIPTOR, 0, fds, (uint32_t)count, milliseconds < 0 ? 0 : TIMED, caller, true);
}

EXPORT int poll(struct pollfd *polled, nfds_t count, int milliseconds)
{
    /* A poll that finds something does not wait. */
    const int found = NEXT(poll)(polled, count, 0);
    if (found != 0 || milliseconds == 0) {
        looked(CALLER);
        return found;
    }
    void *const mark = begins_poll(polled, count, milliseconds, CALLER);
    return POLLED(poll, (polled, count, milliseconds));
}

EXPORT int ppoll(struct pollfd *polled, nfds_t count, const struct timespec *timeout, const sigset_t *mask)
{
    void *const mark = begins_poll(polled, count, timeout ? 0 : -1, CALLER);
    return POLLED(ppoll, (polled, count, timeout, mask));
}

/* Sets of descriptors are not noted. */
EXPORT int select(int count, fd_set *reads, fd_set *writes, fd_set *others, struct timeval *timeout)
{
    void *const mark = begins_on(USERDMA_WAIT_DESCRIPTOR, 0, NULL, 0, timeout ? TIMED : 0, CALLER, false);
    return POLLED(select, (count, reads, writes, others, timeout));
}

EXPORT int pselect(int count, fd_set *reads, fd_set *writes, fd_set *others, const struct timespec *timeout,
                   const sigset_t *mask)
{
    void *const mark = begins_on(USERDMA_WAIT_DESCRIPTOR, 0, NULL, 0, timeout ? TIMED : 0, CALLER, false);
    return POLLED(pselect, (count, reads, writes, others, timeout, mask));
}

EXPORT int epoll_wait(int fd, struct epoll_event *events, int most, int milliseconds)
{
    const int found = NEXT(epoll_wait)(fd, events, most, 0);
    if (found != 0 || milliseconds == 0) {
        looked(CALLER);
        return found;
    }
    void *const mark =
        begins_on(USERDMA_WAIT_EPOLL, (uint32_t)fd, NULL, 0, milliseconds < 0 ? 0 : TIMED, CALLER, true);
    return POLLED(epoll_wait, (fd, events, most, milliseconds));
}

EXPORT int epoll_pwait(int fd, struct epoll_event *events, int most, int milliseconds, const sigset_t *mask)
{
    void *const mark =
        begins_on(USERDMA_WAIT_EPOLL, (uint32_t)fd, NULL, 0, milliseconds < 0 ? 0 : TIMED, CALLER, false);
    return POLLED(epoll_pwait, (fd, events, most, milliseconds, mask));
}

int epoll_pwait2(int fd, struct epoll_event *events, int most, const struct timespec *timeout, const sigset_t *mask)
{
    void *const mark = begins_on(USERDMA_WAIT_EPOLL, (uint32_t)fd, NULL, 0, timeout ? TIMED : 0, CALLER, false);
    return POLLED(epoll_pwait2, (fd, events, most, timeout, mask));
}

/* ---- message queues and semaphores ---- */

EXPORT ssize_t mq_receive(mqd_t queue, char *message, size_t length, unsigned *priority)
{
    RETURN_RECEIVED(ssize_t, queue, NEXT(mq_receive)(queue, message, length, priority));
}

EXPORT ssize_t mq_timedreceive(mqd_t queue, char *message, size_t length, unsigned *priority, const struct timespec *until)
{
    RETURN_RECEIVED(ssize_t, queue, NEXT(mq_timedreceive)(queue, message, length, priority, until));
}

EXPORT int mq_send(mqd_t queue, const char *message, size_t length, unsigned priority)
{
    RETURN_RECEIVED(int, queue, NEXT(mq_send)(queue, message, length, priority));
}

EXPORT int mq_timedsend(mqd_t queue, const char *message, size_t length, unsigned priority, const struct timespec *until)
{
    RETURN_RECEIVED(int, queue, NEXT(mq_timedsend)(queue, message, length, priority, until));
}

/* Returns the result of a call on what System V's `id` names; if it is no error, the thread has waited. */
#define RETURN_SYSTEM_V(type, kind, id, flags, call)                                                                   \
    do {                                                                                                               \
        void *const mark = begins_on(USERDMA_WAIT_##kind, (uint32_t)(id), NULL, 0, flags, CALLER, false);              \
        const type result = (call);                                                                                    \
        ends(mark);                                                                                                    \
        if (result >= 0)                                                                                               \
            waited(-1);                                                                                                \
        return result;                                                                                                 \
    } while (0)

EXPORT ssize_t msgrcv(int queue, void *message, size_t length, long kind, int flags)
{
    RETURN_SYSTEM_V(ssize_t, MESSAGE_QUEUE, queue, 0, NEXT(msgrcv)(queue, message, length, kind, flags));
}

EXPORT int msgsnd(int queue, const void *message, size_t length, int flags)
{
    RETURN_SYSTEM_V(int, MESSAGE_QUEUE, queue, 0, NEXT(msgsnd)(queue, message, length, flags));
}

EXPORT int semop(int set, struct sembuf *operations, size_t count)
{
    RETURN_SYSTEM_V(int, SEMAPHORE_SET, set, 0, NEXT(semop)(set, operations, count));
}

EXPORT int semtimedop(int set, struct sembuf *operations, size_t count, const struct timespec *timeout)
{
    RETURN_SYSTEM_V(int, SEMAPHORE_SET, set, timeout ? TIMED : 0, NEXT(semtimedop)(set, operations, count, timeout));
}

/* ---- signals ---- */

EXPORT int sigwait(const sigset_t *signals, int *number)
{
    return NOTED(SIGNAL, NULL, 0, 0, NEXT(sigwait)(signals, number));
}

EXPORT int sigwaitinfo(const sigset_t *signals, siginfo_t *info)
{
    return NOTED(SIGNAL, NULL, 0, 0, NEXT(sigwaitinfo)(signals, info));
}

EXPORT int sigtimedwait(const sigset_t *signals, siginfo_t *info, const struct timespec *timeout)
{
    return NOTED(SIGNAL, NULL, 0, timeout ? TIMED : 0, NEXT(sigtimedwait)(signals, info, timeout));
}

EXPORT int sigsuspend(const sigset_t *mask)
{
    return NOTED(SIGNAL, NULL, 0, 0, NEXT(sigsuspend)(mask));
}

EXPORT int pause(void)
{
    return NOTED(SIGNAL, NULL, 0, 0, NEXT(pause)());
}

/* ---- sleeps ---- */

#define RETURN_SLEPT(type, call)                                                                                       \
    do {                                                                                                               \
        void *const caller = CALLER;                                                                                   \
        const bool is_noted = userdma_sleep_begins && !is_in_rdma_library(caller);                                     \
        void *const mark = is_noted ? userdma_sleep_begins(caller) : NULL;                                             \
        const type result = (call);                                                                                    \
        if (mark)                                                                                                      \
            userdma_sleep_ends(mark);                                                                                  \
        return result;                                                                                                 \
    } while (0)

EXPORT int nanosleep(const struct timespec *time, struct timespec *rest)
{
    RETURN_SLEPT(int, NEXT(nanosleep)(time, rest));
}

EXPORT int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *rest)
{
    RETURN_SLEPT(int, NEXT(clock_nanosleep)(clock, flags, time, rest));
}

EXPORT int usleep(useconds_t microseconds)
{
    RETURN_SLEPT(int, NEXT(usleep)(microseconds));
}

EXPORT unsigned sleep(unsigned seconds)
{
    RETURN_SLEPT(unsigned, NEXT(sleep)(seconds));
}

EXPORT int thrd_sleep(const struct timespec *time, struct timespec *rest)
{
    RETURN_SLEPT(int, NEXT(thrd_sleep)(time, rest));
}
