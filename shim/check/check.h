/*
 * What `userdma check` learns from the program (R46): notes of posts and polls, memory of outstanding requests, what
 * threads wait for.
 *
 *   messages.c   stacks, and the logs of posts
 *   events.c     logs in a context's file: what threads did in order
 *   notes.c      notes of posts and polls, reports of refused posts
 *   waiting.c    the wait table: what each thread waits for now (src/spec/wait-table.ts)
 *   samples.c    what running threads do
 *   findings.c, annotations.c, own_faults.c   functions for programs (../include/)
 *   noted.h      what these files call of each other; requests.h: memory of outstanding requests, lists further files
 */
#ifndef USERDMA_CHECK_H
#define USERDMA_CHECK_H

#include "../session/session.h"

#include <infiniband/verbs.h>

#include "../preload_events.h"

/* ---- messages.c ---- */

/* Sets recorder_is_on, from the environment. */
void messages_detect(void);
/* After messages_detect: tells the daemon of crashes, and writes their stacks to the file of USERDMA_CRASHES. */
void crashes_detect(void);

/* ---- events.c ---- */

/* After messages_detect. */
void events_detect(void);
/* Maps the logs of a context, unless they are mapped. */
void events_open(int fd);
/* Sends are refused as by adapters that free slots at polls (slots.c). Only if recorder_is_on. */
extern bool shim_frees_at_poll;

/*
 * ---- outstanding.c ----
 *
 * Called only if requests_are_noted. Queues: `fd` is the context's descriptor, `kind` USERDMA_POST_SEND, _RECEIVE or
 * _SHARED, `number` the queue pair number or the handle of the shared receive queue.
 */

/* A queue was reset or destroyed. */
void outstanding_forget(int fd, uint32_t kind, uint32_t number);
/* A new context, perhaps with the descriptor of an earlier one. */
void outstanding_opened(int fd);
/* For sanitizers: the descriptor of a context is closed, which destroys its queues. */
void outstanding_closed(int fd);
/* This process has created a queue pair. */
void outstanding_created(void);
/* A queue pair has no requests. If it takes receives from an SRQ, notes that. */
void outstanding_shares(const struct ibv_qp *qp);
/* Whether this process has opened the context of `fd`. */
bool outstanding_is_own(int fd);
/* Before a fork, in the parent: reports memory of outstanding requests, only the first few elements. */
void outstanding_fork(void);

/* ---- ranges.c ---- */

/* After messages_detect. */
void ranges_detect(void);

/* ---- unmaps.c ---- */

/* Number of known regions. */
EXPORT extern uint32_t userdma_registered;
/* A region was registered, or got other memory. `iova`: what requests call its first address. */
void unmaps_registered(const struct ibv_mr *mr, uint64_t iova);
void unmaps_deregistered(const struct ibv_mr *mr);
/* This memory may be unmapped next: tells the daemon the caller's stack if it overlaps a region. Preserves errno. */
void unmaps_before(const void *memory, size_t bytes);

/* ---- slots.c ---- */

/*
 * The number of sends, of those posted last to the queue pair, for which an adapter that frees slots at polls has none.
 * They are noted as posted. Only if shim_frees_at_poll.
 */
uint32_t slots_missing(const struct ibv_qp *qp);
/* max_send_wr, as the program knows it; 0: unknown. */
void slots_set(const struct ibv_qp *qp, uint32_t slots);
uint32_t slots_of(const struct ibv_qp *qp);

/* ---- devices.c ---- */

/* The program has opened a device. */
void devices_opened(const struct ibv_context *context);

/* ---- descriptors that the program has not got (notes.c) ---- */

/* A call of `function`, a literal, has failed: perhaps the program has run out of descriptors. Preserves errno. */
void check_not_opened(const char *function);
/* A call of `function` has returned `fd`, as does this. */
static inline int check_opened(const char *function, int fd)
{
    if (UNLIKELY(fd < 0))
        check_not_opened(function);
    return fd;
}
/* The program uses a negative descriptor. Preserves errno. */
void check_no_descriptor(void);

/* ---- for shim/waits/waits.c, and notes.c ---- */

/*
 * This thread is about to wait: `kind`, `object`, `owner`, `flags` as of the struct userdma_wait_slot. `caller`: the
 * return address of the program's call. `is_certain`: it blocks, so there is time to take its stack; else only `caller`
 * is noted. Returns NULL if this is a part of a wait that is noted already, or is not noted. Preserve errno.
 */
EXPORT void *userdma_wait_begins(uint32_t kind, uint64_t object, uint32_t owner, uint32_t flags, const void *caller,
                                 bool is_certain);
EXPORT void userdma_wait_ends(void *wait);
/* A sleep, which ends by itself. NULL as of userdma_wait_begins. Preserve errno. */
EXPORT void *userdma_sleep_begins(const void *caller);
EXPORT void userdma_sleep_ends(void *sleep);
EXPORT void userdma_wait_owner(void *wait, uint32_t owner);
EXPORT void userdma_wait_descriptors(void *wait, const int *descriptors, uint32_t count);
/* The thread has looked at a descriptor without waiting. */
EXPORT void userdma_looked(void);
/* A signal has ended a wait of this function: it returned EINTR. Preserves errno. */
EXPORT void userdma_interrupted(const char *function);
/* The program installs its own handler of a signal. */
EXPORT void userdma_handles_signal(int signal);
/* It signals a condition variable, or posts a semaphore. */
EXPORT void userdma_signals(const void *object, const void *caller);

#endif
