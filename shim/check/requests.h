/*
 * Outstanding requests as the files of this folder share them. The public interface is outstanding.h. A slot is the
 * index of an element in `elements`, and of its memory in `ranges`.
 *
 *   ranges.c       memory ranges by slot, and whether a freed block overlaps one
 *   requests.c     the lock, queues, and the scatter/gather elements of their requests
 *   frames.c       memory in stack frames that have returned
 *   unwind.c       walks of the caller's stack
 *   reports.c      reports to the daemon
 *   outstanding.c  posts, completions, frees, forks
 *   exits.c        _exit and _Exit
 */
#ifndef USERDMA_REQUESTS_H
#define USERDMA_REQUESTS_H

#include "../shim.h"

#include <infiniband/verbs.h>

#include "outstanding.h"

/* Scatter/gather elements of outstanding requests; a request without memory takes one too. */
#define MAX_RANGES 32768
/* Entries of the table of queues. */
#define MAX_QUEUES 4096
/* No slot. */
#define NONE UINT32_MAX

/* ---- ranges.c ---- */

/* The memory of an element, {0, 0} if it has none. Apart from the elements, since all ranges are scanned. */
struct range {
    uintptr_t start, end;
};
extern struct range ranges[MAX_RANGES];

/* The number of ranges that are not empty. Every free() of a block reads it (shim/frees/frees.c). */
EXPORT extern uint32_t userdma_outstanding;

/* With the lock held. A range of 0 bytes stays empty. */
void range_set(uint32_t slot, uintptr_t start, uint32_t bytes);
void range_clear(uint32_t slot);
/* In the child of a fork. */
void ranges_forget_all(void);

/* ---- requests.c ---- */

struct element {
    uint64_t wr_id;
    /* Slots of its neighbours in its queue, or NONE; `next` also links free slots. */
    uint32_t next, previous;
    /* Number of its queue in the table of queues. */
    uint32_t queue;
    /* The queue's `posted` after its request was posted; the same for all elements of one request. */
    uint32_t index;
    /* Of memory on the poster's stack: the thread (frames.c) and the address of its outermost frame; else thread 0. */
    uint32_t thread;
    uintptr_t outermost;
    bool is_signaled;
};
extern struct element elements[MAX_RANGES];
/* Slots from here on were never used. */
extern uint32_t used_slots;

struct queue {
    /* USERDMA_POST_SEND, _RECEIVE or _SHARED; 0: the entry is empty, and ends a probe. */
    uint32_t kind;
    /* Queue pair number, or handle of a shared receive queue. */
    uint32_t number;
    /* The context's descriptor; -1: the queue was forgotten. */
    int fd;
    /* Slots of its elements, or NONE. */
    uint32_t first, last;
    /* Requests since its creation or RESET. */
    uint32_t posted;
    struct queue *next_shared;
};
/* Shared receive queues, linked by `next_shared`. */
extern struct queue *first_shared;

/* Something was not recorded, since a table was full. */
extern bool requests_are_full;

/*
 * The lock of requests, ranges and waiting reports. False if another holder keeps it for long: a signal handler may
 * have left the holder by siglongjmp. Not the session's lock, since free() is called with any lock of the program held.
 */
bool requests_lock(void);
void requests_unlock(void);

/*
 * This function and the following ones are called with the lock held. The queue; if it is unknown it is created with
 * `should_create`, else NULL. NULL also if the table is full.
 */
struct queue *queue_of(int fd, uint32_t kind, uint32_t number, bool should_create);
const struct queue *queue_of_element(uint32_t slot);
/* Appends an element of the queue's latest request; its slot, or NONE if all slots are in use. */
uint32_t element_append(struct queue *queue, uint64_t wr_id, bool is_signaled);
void element_remove(struct queue *queue, uint32_t slot);
/* The element's memory is not watched any more. */
void element_clear(uint32_t slot);
/*
 * Removes the polled request: a receive, or a send with all sends before it. False if the queue has no such request.
 */
bool request_complete(struct queue *queue, uint64_t wr_id);
void queue_forget(struct queue *queue);
/* Forgets all queues of the context with that descriptor. */
void queues_forget(int fd);
/* In the child of a fork, without the lock: the parent's requests are not the child's. */
void requests_forget_all(void);

/* ---- frames.c ---- */

/* Whether an address is on this thread's stack; false before its first post. */
bool frames_is_on_stack(uintptr_t address);

/*
 * Without the lock: the address of this thread's outermost frame if any of the elements' memory is on this thread's
 * stack above `frame`; else 0, or if it is unknown.
 */
uintptr_t frames_outermost(const struct ibv_sge *list, int count, uintptr_t frame);
/*
 * With the lock held: if the memory of `slot`, at `address`, is on this thread's stack, notes that. `outermost`: as
 * frames_outermost has returned it.
 */
void frames_note(uint32_t slot, uintptr_t address, uintptr_t outermost);
/* In the child of a fork. */
void frames_forget_all(void);

/* ---- reports.c ---- */

struct report {
    struct userdma_misuse misuse;
    int fd;
    /* When it was made, as shim_nanoseconds. */
    uint64_t time;
    struct stack stack;
};

/* With the lock held: a report of that kind (USERDMA_MISUSE_…) about an element, without a stack. */
struct report report_of(uint32_t slot, uint32_t kind);
/* Without the lock: adds the caller's stack, and keeps the report until outstanding_report. Does not allocate. */
void report_later(struct report *report);
/* Without the lock: sends a report that has its stack. */
void report_send(struct report *report);
/* In the child of a fork. */
void reports_forget_all(void);

/* ---- outstanding.c ---- */

/* A block that may overlap a range is freed. May change errno. */
void outstanding_freed(uintptr_t start, uintptr_t end);

#endif
