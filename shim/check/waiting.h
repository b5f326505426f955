/*
 * The wait table: what each thread of the program waits for now (src/spec/wait-table.ts), for `userdma check` and
 * `userdma stat --waits`.
 */
#ifndef USERDMA_WAITING_H
#define USERDMA_WAITING_H

#include <infiniband/verbs.h>
#include <stdbool.h>
#include <stdint.h>

#include "../protocol.h"
#include "../recorder/recorder.h"

/* At the start of the process, if it is recorded. */
void waiting_detect(void);
/* In the child of a fork: it gets a table of its own. */
void waiting_in_child(void);
/* The hidden descriptor of the table has another number. */
void waiting_moved(int old_fd, int new_fd);
/* The descriptor of the table's file; -1: none. The libraries that are loaded now are described in it. */
int waiting_file(void);
/* The ring of lends, in the same file (lends.c); NULL: none. */
char *waiting_lend_ring(void);
/* lends.c: in the child of a fork, the lends of the parent are not the child's. */
void lends_in_child(void);
/* Libraries were loaded or unloaded. Takes the loader's lock. */
void waiting_describe_modules(void);

/* The sample of this thread, to be written; NULL: there is no table. */
struct userdma_wait_sample *waiting_sample(void);
/* From now on nobody sends the signal for samples. */
void waiting_no_samples(void);
/* samples.c: the signal for samples, whose handler is installed; 0: the program has one. */
uint32_t samples_signal(void);

/* A poll of a CQ begins; it has found a completion. */
void waiting_polls(const struct ibv_cq *cq);
HIDDEN extern TLS uint32_t waiting_empty_polls;
static inline void waiting_found(void)
{
    waiting_empty_polls = 0;
}

/* This thread has started a batch of ibv_wr_*, by a call that returns to `caller`, or has ended it. */
void waiting_batch(const struct ibv_qp *qp, const void *caller);
void waiting_batch_ended(void);

/* ---- for shim/waits/waits.c, and notes.c ---- */

/*
 * This thread is about to wait: `kind`, `object`, `owner`, `flags` as of the struct userdma_wait_slot. `caller`: the return
 * address of the program's call. `is_certain`: it blocks, so there is time to take its stack; else only `caller` is
 * noted. Returns NULL if this is a part of a wait that is noted already, or is not noted. Preserve errno.
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
/* The program installs its own handler of a signal. */
EXPORT void userdma_handles_signal(int signal);
/* It signals a condition variable, or posts a semaphore. */
EXPORT void userdma_signals(const void *object, const void *caller);

#endif
