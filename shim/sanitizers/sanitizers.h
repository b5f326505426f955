/*
 * Sanitizers of the program, if it has one: they see the program's own loads and stores, and are told here what a
 * device does with its memory, as if the device were a thread of the program. A file for each:
 *
 *   symbols.c    the functions of a sanitizer's runtime in this process
 *   tsan.c       ThreadSanitizer: a fiber for each queue pair, ordered by posts and completions
 *   asan.c       AddressSanitizer: memory that a device uses and the program may not
 *   memcheck.c   valgrind's memcheck: also which bytes have arrived
 *   calls.c      calls by which processes tell each other what they have done
 *   sanitizers.c all of them
 *   runtimes.c   their start; also in the library of `--host`
 *
 * Without one, nothing of this is called but sanitizers_detect.
 */
#ifndef USERDMA_SANITIZERS_H
#define USERDMA_SANITIZERS_H

#include "../recorder/recorder.h"

/* A sanitizer is there. Set once, at the start of the process. */
HIDDEN extern bool sanitizers_watch;
/* One of them looks at what devices have used (sanitizers_used). */
HIDDEN extern bool sanitizers_look;
/* One of them wants the order of accesses: ThreadSanitizer. */
HIDDEN extern bool sanitizers_order;
/* The process runs under valgrind. */
HIDDEN extern bool sanitizers_valgrind;

/* At the start of the process. */
void sanitizers_detect(void);
/* The program has opened a device; `fd`: of the context. */
void sanitizers_opened(int fd, const char *device);
/*
 * The program gets the memory of a queue, by which it posts and polls itself: no order of requests is known any more.
 */
void sanitizers_bypassed(void);
/* The name of a context's device. */
const char *sanitizers_device(int fd);

/* A queue of requests. */
struct device_queue {
    /* That of its context. */
    int fd;
    /* It is a shared receive queue, and `number` its handle; else that of a queue pair. */
    bool is_shared;
    /* A peer's accesses by it, not its own requests. */
    bool is_peer;
    uint32_t number;
};

/* Memory that a request gives to the device, until its completion is polled or its queue is reset or destroyed. */
struct device_memory {
    /* Addresses of this library that are of this memory alone, and of its region. */
    const void *token, *region;
    uintptr_t start;
    size_t bytes;
    /* The device writes to it, else it reads it. */
    bool is_written;
    /* Other requests use it too, and one of them writes: what the devices do first is not known. */
    bool is_shared;
};

/* ---- by the thread that posts, before the provider does, without the lock of requests ---- */

/*
 * Sends and READs, `has_message`: of which one tells the peer something. Receives, from which nothing is known of an
 * access: perhaps no message comes.
 */
void sanitizers_takes(struct device_queue queue, const struct device_memory *list, uint32_t count, bool has_message);
void sanitizers_takes_receives(const struct device_memory *list, uint32_t count);

/* ---- by the thread that has polled the completion, or reset or destroyed the queue ---- */

/* The device has given back the memory of a token, or all memory of a region. Takes no lock, and reports nothing. */
void sanitizers_returns(const void *token);
/* A receive of a queue pair has completed: what was sent before is known to this thread. Likewise. */
void sanitizers_receives(struct device_queue queue);
/* The device has used memory for a request whose completion was polled; without the lock of requests. */
void sanitizers_used(struct device_queue queue, const struct device_memory *memory);
/* Before, if it was a receive: the message has come then. `queue`: of the queue pair. */
void sanitizers_arrives(struct device_queue queue, const struct device_memory *list, uint32_t count);

/* ---- peers, of which the daemon tells (shim/session/peers.c) ---- */

/* A queue pair of the program, and the one that it is connected to; 0: none. */
struct device_pair {
    int fd;
    uint32_t number, peer;
};
void sanitizers_connected(struct device_queue queue, uint32_t peer);
/* NULL: the program has no such queue pair. */
const struct device_pair *sanitizers_pair(uint32_t number);
/* A peer will access memory by the program's queue pair `number`. `access`: IBV_ACCESS_REMOTE_WRITE, READ or ATOMIC. */
void sanitizers_peer(uint32_t number, uint32_t access, uintptr_t start, size_t bytes);
/* A request of this thread that accesses a peer's memory has completed. Takes no lock, and reports nothing. */
void sanitizers_accessed(struct device_queue queue);
/* tsan.c */
void tsan_tells(void);
void tsan_hears(void);
/* This thread may tell a peer of what it has done; it may have heard of what peers have done. Likewise. */
static inline void sanitizers_tells(void)
{
    if (UNLIKELY(sanitizers_order))
        tsan_tells();
}
static inline void sanitizers_hears(void)
{
    if (UNLIKELY(sanitizers_order))
        tsan_hears();
}
/* `call`, by which others may learn something. */
#define TELLING(call) (sanitizers_tells(), (call))

/* What this thread does is no access of the program: pages move as they are, with bytes that nobody has written. */
void sanitizers_ignore(bool is_ignored);

/* ---- other processes have written (shim/session/written.c) ---- */

/* `is_peers`: a peer has, in a registered region. */
void sanitizers_written(uintptr_t start, size_t bytes, bool is_peers);

/* ---- forks and the end ---- */

void sanitizers_before_fork(void);
/* Then, in the parent and in the child. */
void sanitizers_after_fork(void);

/* ---- what they say, for `userdma check` (shim/check/told.c) ---- */

void told_detect(void);
/* A sanitizer reports `sentence`, of this call. `is_later`: the daemon cannot be told now. */
void told_say(const char *sentence, bool is_later);
/* Tells the daemon what was kept. Not in a sanitizer's report, nor with the session's lock. */
void told_send_kept(void);

/* ---- symbols.c ---- */

/*
 * `freed` is called before the program's frees, if the executable has an allocator with a sanitizer: no library sees
 * them.
 */
void sanitizers_watch_frees(void (*freed)(const volatile void *block));

/*
 * A function of the runtime of a sanitizer; NULL: there is none. In the symbols for the loader, else, in a program that
 * has the C library's `ioctl` itself, in its table of symbols: GCC's static runtimes export nothing. May read a file.
 */
void *sanitizer_symbol(const char *name);
/* A function of the C library, or the one that a sanitizer has instead. */
#define SANITIZER_FUNCTION(name)                                                                                       \
    ({                                                                                                                 \
        __typeof__(&name) own_ = (__typeof__(&name))sanitizer_symbol(#name);                                           \
        own_ ? own_ : NEXT(name);                                                                                      \
    })

/* ---- tsan.c, asan.c, memcheck.c: as above ---- */

bool tsan_detect(void);
void tsan_opened(void);
void tsan_takes(struct device_queue queue, const struct device_memory *list, uint32_t count, bool has_message);
void tsan_takes_receives(const struct device_memory *list, uint32_t count);
void tsan_arrives(struct device_queue queue, const struct device_memory *list, uint32_t count);
void tsan_returns(const void *token);
void tsan_receives(struct device_queue queue);
void tsan_peer(struct device_queue queue, uint32_t access, uintptr_t start, size_t bytes);
void tsan_accessed(struct device_queue queue);
void tsan_before_fork(void);
void tsan_after_fork(void);
void tsan_end(void);

bool asan_detect(void);
/* The first byte of the memory that is not the program's; 0: there is none. */
uintptr_t asan_first_foreign(uintptr_t start, size_t bytes);
/* Reports the memory from such a byte on. */
void asan_report(uintptr_t start, size_t bytes, bool is_written);

bool memcheck_detect(void);
/* As asan_first_foreign; reports it, too. */
uintptr_t memcheck_report(uintptr_t start, size_t bytes);
/* A request sends these bytes. */
void memcheck_sent(uintptr_t start, size_t bytes);
void memcheck_written(uintptr_t start, size_t bytes);
void memcheck_ignore(bool is_ignored);

#endif
