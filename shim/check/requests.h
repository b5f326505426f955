/*
 * Outstanding requests, shared by the files of this folder. check.h has what others call. A slot is the index
 * of a scatter/gather element in `elements`, and of its memory in `ranges`.
 *
 *   ranges.c       memory ranges by slot, and whether a freed block overlaps one
 *   requests.c     the lock, queues, and the scatter/gather elements of their requests
 *   frames.c       memory in stack frames that have returned
 *   reports.c      reports to the daemon
 *   outstanding.c  posts, completions, frees, forks
 *   exits.c        ends of the program that run no functions of atexit(3)
 *   crashes.c      ends of the program by a signal such as SIGSEGV
 *   unmaps.c       registered memory, stacks of unmapping
 *   given.c        registered memory that is given back
 *   hashes.c       hashes of send buffers at the post
 *   slots.c        sends that adapters refuse
 *   lends.c        memory that the program lends
 *   pollers.c      which threads poll a CQ
 */
#ifndef USERDMA_REQUESTS_H
#define USERDMA_REQUESTS_H

#include "noted.h"

#include <infiniband/verbs.h>


/* Maximum scatter/gather elements of outstanding requests. A request without memory also takes one. */
#define MAX_RANGES 32768
/* Entries of the table of queues. */
#define MAX_QUEUES 4096
/* No slot. */
#define NONE UINT32_MAX
/* The device's max_sge. The provider refuses requests with more elements, whose list may be shorter than they say. */
#define MAX_SGE 32

/* ---- ranges.c ---- */

/* The memory of an element; {0, 0}: none. Not in `elements`, because all ranges are scanned. */
struct range {
    uintptr_t start, end;
};
extern struct range ranges[MAX_RANGES];

/* Number of ranges that are not empty. Each free() reads it (shim/frees/frees.c). */
EXPORT extern uint32_t userdma_outstanding;
/*
 * Number of the latest element with memory. A realloc() reads it before it gives back memory: elements with higher
 * numbers may use memory that another thread has allocated since.
 */
EXPORT extern uint64_t userdma_latest;

/* With the lock held. A range of 0 bytes stays empty. */
void range_set(uint32_t slot, uintptr_t start, uint32_t bytes);
void range_clear(uint32_t slot);
/* In the child of a fork. */
void ranges_forget_all(void);

/* ---- requests.c ---- */

struct element {
    uint64_t wr_id;
    /* Slots of the neighbours in the queue, or NONE. `next` also links free slots. */
    uint32_t next, previous;
    /* Index of the queue in the table of queues. */
    uint32_t queue;
    /* The position of the request: the queue's `posted` after the post. The same in all elements of a request. */
    uint32_t index;
    uint32_t lkey;
    /* The value of userdma_latest for this element; 0: the request has no memory. */
    uint64_t number;
    /* For memory on the poster's stack: the thread (frames.c) and the address of its outermost frame. Else thread 0. */
    uint32_t thread;
    uintptr_t outermost;
    bool is_signaled;
    /* The device writes what it has read to the memory. */
    bool is_read;
    /* In the first element of a request: it accesses the peer's memory. */
    bool is_remote;
    /* Likewise: it takes memory from peers. */
    bool is_revoking;
    /*
     * In the first element of a request: the device sends the bytes of the request's elements, which do not change
     * before; and hash is that of these bytes at the post.
     */
    bool is_sent, is_hashed;
    uint32_t hash;
    /* Other outstanding requests use the memory too, and one of them lets the device write (for sanitizers). */
    bool is_shared;
    /* Sanitizers were told of the post. */
    bool is_given;
};
extern struct element elements[MAX_RANGES];
/* Slots from this one on were never used. */
extern uint32_t used_slots;

struct queue {
    /* USERDMA_POST_SEND, _RECEIVE or _SHARED; 0: an empty entry, which ends a search. */
    uint32_t kind;
    /* Queue pair number, or handle of a shared receive queue. */
    uint32_t number;
    /* The context's descriptor; -1: the queue was forgotten. */
    int fd;
    /* Slots of elements, or NONE. */
    uint32_t first, last;
    /* Number of requests since creation or RESET, without refused ones. */
    uint32_t posted;
    /*
     * The order of `posted` may not be that of the device's queue (../recorder/locks.h): nothing is noted by position.
     */
    bool is_unordered;
    /* Of the receives of a queue pair that takes them from an SRQ. */
    bool has_shared;
    /* Its handle. */
    uint32_t shared;
    /* max_send_wr of a send queue (slots.c); 0: not known yet. */
    uint32_t slots;
    /* Unlike that of earlier queues with this number. */
    uint32_t life;
    /* Number of polled completions of a send queue. */
    uint32_t polled;
    /* `posted` of a send queue when a receive of its queue pair was polled last. */
    uint32_t answered;
    /* Of an SRQ: another one had a receive with the same wr_id, and it is not known which has completed. */
    bool is_unsure;
    struct queue *next_shared;
};
/* Shared receive queues, linked by `next_shared`. */
extern struct queue *first_shared;

/* Something was not recorded: a table was full. */
extern bool requests_are_full;

/*
 * The lock of requests, ranges and kept reports. False as of holder_take: a signal handler has interrupted the holder,
 * or the lock is lost. Not the session's lock, because free() may be called with any lock held.
 */
bool requests_lock(void);
void requests_unlock(void);

/* The functions of requests.c below, except requests_forget_all, are called with the lock held. */

/* Returns a queue; with `should_create`, creates an unknown queue. NULL: unknown, or the table is full. */
struct queue *queue_of(int fd, uint32_t kind, uint32_t number, bool should_create);
const struct queue *queue_of_element(uint32_t slot);
/* Appends an element to the request that `posted` counted last. Returns the slot, or NONE if all slots are in use. */
uint32_t element_append(struct queue *queue, uint64_t wr_id, bool is_signaled);
void element_remove(struct queue *queue, uint32_t slot);
/* Stops watching the element's memory. */
void element_clear(uint32_t slot);
/* Removes a polled receive. False: unknown request. */
bool receive_complete(struct queue *queue, uint64_t wr_id);
/* The first element of the outstanding receive with this wr_id; NONE: there is none. */
uint32_t receive_find(const struct queue *queue, uint64_t wr_id);
/* The first element of the send with this wr_id that has completed; NONE: unknown. */
uint32_t send_find(const struct queue *queue, uint64_t wr_id);
/* Removes all elements of the queue's first request. */
void request_remove_first(struct queue *queue);
void queue_forget(struct queue *queue);
/* Forgets all queues of the context with this descriptor. */
void queues_forget(int fd);
/* In the child of a fork, without the lock. */
void requests_forget_all(void);

/* ---- unmaps.c ---- */

/* The daemon watches no more regions of a process. */
#define MAX_REGIONS 1024

struct region {
    const struct ibv_mr *mr;
    uintptr_t start, end;
    /* What requests call `start`, and the key by which they name the region. */
    uint64_t iova;
    uint32_t lkey;
    uint32_t handle;
    int fd;
    /* For memory on the stack of the thread that has registered it: as in struct element. */
    uint32_t thread;
    uintptr_t outermost;
    /* It was reported as given back, and then that the program may have the memory again. */
    bool is_given, is_reusable;
};
/* Written with the lock held, read without. `mr` NULL: unused. */
extern struct region regions[MAX_REGIONS];
/* Entries from this one on were never used. */
extern uint32_t used_regions;

/* With the lock held: the region that requests of the context name by a key; NULL: unknown. */
const struct region *region_named(int fd, uint32_t lkey);

/* ---- given.c ---- */

/* With the lock held. */
void given_registered(const struct region *region);
/* Without the lock, after the region has left the table. */
void given_deregistered(const struct region *region);
/* As userdma_freed. `is_whole`: the block is not freed yet. */
unsigned given_block(void *block, size_t bytes, bool by_realloc, bool is_whole);
/*
 * Frames of `thread` below `frame` have returned, whose outermost frame is at `outermost`. Returns the start of the
 * lowest region of the thread that is alive, or 0.
 */
uintptr_t given_by_return(uint32_t thread, uintptr_t frame, uintptr_t outermost);
/* A thread ends, and another one begins with the stack from `bottom` to `top`. */
void given_by_thread(uint32_t thread);
void given_to_thread(uintptr_t bottom, uintptr_t top);
/* In the child of a fork. */
void given_forget_all(void);

/* ---- frames.c ---- */

/*
 * Without the lock: the address of this thread's outermost frame, if memory of the elements in `list` is on this
 * thread's stack in the frame at `frame`, the poster's, or in those of its callers. 0: no such memory, or unknown.
 */
uintptr_t frames_outermost(const struct ibv_sge *list, int count, uintptr_t frame);
/* With the lock held: notes the memory of `slot` if `address` is on this thread's stack. `outermost`: as above. */
void frames_note(uint32_t slot, uintptr_t address, uintptr_t outermost);
/* Without the lock: notes the thread of a new region whose memory is on this thread's stack. */
void frames_note_region(struct region *region);
/* In the child of a fork. */
void frames_forget_all(void);

/* ---- reports.c ---- */

/* What is told of an element (FREED, RETURNED, FORKED), or of memory of a region. */
enum report_kind { REPORT_FREED, REPORT_RETURNED, REPORT_FORKED, REPORT_GAVE_BACK };

struct report {
    enum report_kind kind;
    int fd;
    /* Of the report, as shim_nanoseconds. */
    uint64_t time;
    struct stack stack;
    union {
        struct {
            uint64_t wr_id, address;
            uint32_t queue, number, index, more;
        } element;
        struct {
            uint64_t start, end;
            uint32_t region, how;
            bool is_kept;
        } given;
    };
};

/* With the lock held: a report about an element, without a stack. */
struct report report_of(uint32_t slot, enum report_kind kind);
/* Without the lock: adds the caller's stack, and keeps the report until reports_send_kept. Does not allocate. */
void report_later(struct report *report);
/* Without the lock: sends a report with a stack. */
void report_send(struct report *report);
/* In the child of a fork. */
void reports_forget_all(void);

/* ---- crashes.c ---- */

/* This thread uses verbs: the handler of crashes.c has a stack of its own in it. */
void crashes_begin_thread(void);

struct stack;
/* In a signal handler: as stack_take_interrupted. Without frames if the stack cannot be walked. */
void crashes_take_stack(struct stack *stack, const void *context);

/* The program has a handler of its own for a signal. Looked for when a thread polls a CQ for the first time. */
extern bool crashes_has_handlers;
void crashes_look_for_handlers(void);

/* From now on, kept reports are sent before a signal such as SIGSEGV ends the program. */
void crashes_watch(void);

/* ---- hashes.c ---- */

/* Whether the buffer of send number `index` (from 0) is a sample. */
bool hashes_are_wanted(uint32_t index);
/*
 * Without the lock: hashes the buffer of send number `index` (from 0). False if it cannot be read. May change errno.
 */
bool hashes_take(uint32_t index, const struct ibv_sge *list, int count, uint32_t *hash);
/* The hash of memory that is lent (LendHash of src/spec/lends.ts). False if it cannot be read. May change errno. */
bool hashes_of_lend(uint64_t address, uint64_t length, uint32_t *hash);
/* Before the post: tells the daemon the hash of a sample; with `is_known` false, that there is none. */
void hashes_note(int fd, uint32_t qpn, uint32_t index, bool is_known, uint32_t hash);

/* ---- pollers.c ---- */

/* This thread polls a CQ. */
void pollers_note(const struct ibv_cq *cq);
/* An object was destroyed, which may be a CQ. */
void pollers_destroyed(const void *object);

/* ---- devices.c ---- */

/* A list of devices was freed. */
void devices_freed(const void *list);

/* ---- notes.c ---- */

/*
 * ibv_wr_* have set elements: reports those in a returned stack frame, or if the list `is_own` of the program, that it
 * is.
 */
void note_dead_elements(const struct ibv_qp_ex *qp, const struct ibv_sge *list, int count, uintptr_t frame, bool is_own);

/* ---- outstanding.c ---- */

/* The program exits: frees are no findings. */
bool outstanding_is_exiting(void);
/*
 * A block that may overlap a range is being freed. `latest`: the last element that may use the block. May change errno.
 */
void outstanding_freed(uintptr_t start, uintptr_t end, uint64_t latest);

#endif
