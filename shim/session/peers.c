/*
 * What peers do with the program's memory, for its sanitizer. The daemon writes each access of a peer into shared
 * memory before it happens, and waits a moment (src/daemon/session/peer-accesses.ts); a thread of the program tells the
 * sanitizer, and answers. The thread starts when the program first registers memory for peers. It is gone while the
 * program forks: a sanitizer forbids a child whose parent had threads to start any.
 */
#define _GNU_SOURCE
#include "connection.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define FILE_BYTES 4096
/* In `posted`: the thread is to end. The daemon's numbers are lower. */
#define ENDING 0x80000000u

/* Shared with the daemon of this connection; NULL: none. */
static struct userdma_peer_access *page;
static uint16_t generation;

static pthread_t server;
static bool is_served, is_ending;
/* Of `missed`: what the program was told, or has forked in. */
static uint32_t known_missed;

/* For which the thread waits until it looks whether it is the last one. */
static const struct timespec LOOK_INTERVAL = {.tv_sec = 1};

static bool wait_word(uint32_t *word, uint32_t value, const struct timespec *most)
{
    return syscall(SYS_futex, word, FUTEX_WAIT, value, most, NULL, 0) == 0 || errno != ETIMEDOUT;
}

static void wake_word(uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

static void say_late(void)
{
    static bool is_said;
    if (!is_said)
        dprintf(STDERR_FILENO,
                "userdma: the program was stopped, or busy, while a peer accessed its memory: its sanitizer does not know "
                "of all that peers did, and may report too much\n");
    is_said = true;
}

void peers_end(void)
{
    if (!is_served)
        return;
    page->is_ended = 1;
    wake_word(&page->taken);
}

/*
 * The main thread has ended by pthread_exit, and no other is left: the C library would end the program then. The main
 * thread stays as a zombie.
 */
static bool is_last_thread(void)
{
    char text[512], state = 0;
    long threads = 0;
    const int file = REAL(open)("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    const ssize_t length = file < 0 ? -1 : REAL(read)(file, text, sizeof text - 1);
    if (file >= 0)
        REAL(close)(file);
    text[length < 0 ? 0 : length] = 0;
    const char *const name = strrchr(text, ')'); /* which may have spaces */
    return name &&
           sscanf(name + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld", &state,
                  &threads) == 2 &&
           state == 'Z' && threads == 2;
}

static void end_program(void)
{
    peers_end();
    is_served = false;
    exit(0);
}

/* All signals are blocked, as when it was made. */
static void *serve(void *argument)
{
    (void)argument;
    prctl(PR_SET_NAME, (unsigned long)"userdma-peers", 0, 0, 0);
    while (!__atomic_load_n(&is_ending, __ATOMIC_ACQUIRE)) {
        const uint32_t posted = __atomic_load_n(&page->posted, __ATOMIC_ACQUIRE);
        if ((posted & ~ENDING) == page->taken) {
            if (!wait_word(&page->posted, posted, &LOOK_INTERVAL) && is_last_thread())
                end_program();
            continue;
        }
        const uint32_t missed = __atomic_load_n(&page->missed, __ATOMIC_ACQUIRE);
        if (missed == known_missed)
            sanitizers_peer(page->qpn, page->access, page->address, page->length);
        else
            say_late();
        known_missed = missed;
        __atomic_store_n(&page->taken, posted & ~ENDING, __ATOMIC_RELEASE);
        wake_word(&page->taken);
    }
    return NULL;
}

/* With signals blocked. */
static void start(void)
{
    const __typeof__(&pthread_create) create = SANITIZER_FUNCTION(pthread_create);
    is_ending = false;
    is_served = create(&server, NULL, serve, NULL) == 0;
    if (!is_served)
        page->is_ended = 1;
}

static void stop(void)
{
    const __typeof__(&pthread_join) join = SANITIZER_FUNCTION(pthread_join);
    if (!__atomic_exchange_n(&is_served, false, __ATOMIC_ACQ_REL))
        return;
    __atomic_store_n(&is_ending, true, __ATOMIC_RELEASE);
    __atomic_fetch_or(&page->posted, ENDING, __ATOMIC_ACQ_REL);
    wake_word(&page->posted);
    join(server, NULL);
}

/* The program ends. */
static void at_exit(void)
{
    if (shim_is_other_process())
        return;
    peers_end();
    stop();
}

static void forget_page(void)
{
    if (page)
        munmap(page, FILE_BYTES);
    page = NULL;
}

/* A new page, for the daemon of this connection. Returns its file, or -1. */
static int create_page(void)
{
    void *memory;
    const int file = fd_of_memory("userdma peers", FILE_BYTES, &memory);
    if (file < 0)
        return -1;
    page = memory;
    known_missed = 0;
    if (madvise(page, FILE_BYTES, MADV_DONTFORK) == 0)
        return file;
    forget_page();
    REAL(close)(file);
    return -1;
}

/* With the session's lock held. */
static void pass(const struct shim_guard *guard)
{
    struct request request = {.header = {.type = USERDMA_PEERS, .fd = -1}};
    struct reply reply;
    stop();
    forget_page();
    const int file = create_page();
    if (file < 0)
        return;
    const bool is_passed = session_exchange_with(&request, 0, file, &reply, guard) == 0;
    if (is_passed)
        reply_close_all(&reply);
    REAL(close)(file);
    if (!is_passed || reply.message.call.ret != 0) {
        forget_page();
        return;
    }
    static bool is_registered;
    if (!is_registered)
        atexit(at_exit);
    is_registered = true;
    start();
}

void peers_watch(void)
{
    struct shim_guard guard;
    const int saved = errno;
    /* Valgrind runs one thread at a time, and not this one soon: its tool asks (written.c). */
    if (sanitizers_valgrind || generation == session_generation() || shim_is_other_process() ||
        !session_enter(&guard))
        return;
    if (session_is_connected() && generation != session_generation()) {
        generation = session_generation();
        pass(&guard);
    }
    session_leave(&guard);
    errno = saved;
}

void peers_before_fork(void)
{
    if (!shim_is_other_process())
        stop();
}

void peers_in_parent(void)
{
    struct shim_guard guard;
    if (!page || page->is_ended)
        return;
    shim_guard_enter(&guard);
    __atomic_fetch_and(&page->posted, ~ENDING, __ATOMIC_ACQ_REL);
    start();
    shim_guard_leave(&guard);
}

/* A process with threads may not leave its namespace of users. */
EXPORT int unshare(int flags)
{
    const bool was_served = is_served;
    if (was_served)
        peers_before_fork();
    const int result = NEXT(unshare)(flags);
    const int saved = errno;
    if (was_served)
        peers_in_parent();
    errno = saved;
    return result;
}

/* The page was not inherited. */
IN_CHILD void peers_in_child(void)
{
    page = NULL;
    is_served = false;
    generation = 0;
}
