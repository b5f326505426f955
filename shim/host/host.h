/*
 * Common declarations of the library for `--host`: it observes a program on the machine's own devices. It redirects
 * nothing: each function calls the next library's and records what it saw (records.h, src/tools/observe/).
 *
 *   ring.c         the observation file: a ring for each thread; starts and ends of the process
 *   flight.c       the flight recorder: rings that are overwritten, for posts and polls
 *   descriptors.c  which descriptors are RDMA's: opens, duplicates, passing, closes
 *   calls.c        calls on descriptors of RDMA
 *   messages.c     messages that are read or sent: events, management datagrams, netlink
 *   queues.c       posts and polls (../recorder/)
 *   extended.c     posts by ibv_wr_*, polls of extended CQs
 *   stacks.c       records of stacks (../recorder/)
 *   sanitizers.c   what posts and polls show to a sanitizer of the program (../sanitizers/)
 *   faults.c       faults of calls, posts and completions (--allow-host-faults)
 *
 * Rules for all files: a program behaves as without the library, unless a fault rule acts. So errno is kept, and
 * nothing waits but a post or poll for that of another thread in the same queue (../recorder/locks.h), as in the
 * provider. No call of the system is added to another post or poll while no rule may act on it.
 */
#ifndef USERDMA_HOST_H
#define USERDMA_HOST_H

#include "../recorder/verbs.h"

#include "../protocol.h"
#include "records.h"

/* ---- ring.c ---- */

/*
 * Begins a record of at most `bytes` in this thread's ring: zeros of the record's header. NULL: it is dropped and
 * counted. Nothing else may be recorded before record_end. `kind`: USERDMA_RECORD_.
 */
void *record_begin(uint32_t kind, size_t bytes);
/* Ends the record with its size, the header included. */
void record_end(void *record, size_t bytes);
/* Records `kind` with a descriptor, a number and a text. */
void record_text(uint32_t kind, int fd, uint32_t number, const char *text);
/* As record_begin and record_end, of this process's flight recorder (flight.c). */
void *flight_begin(uint32_t kind, size_t bytes, uint32_t thread);
void flight_end(void *record, size_t bytes);
/* Whether there is a flight recorder, which has all posts and polls. */
extern bool flight_is_on;
void flight_open(void);
void flight_in_child(void);
void flight_thread_ends(void);
/* A completion with this status was recorded: if it is in error, the observer writes what was recorded. */
void flight_completed(enum ibv_wc_status status);
/* The time of a record, now. */
uint64_t record_time(void);
/* False in the child of vfork: memory is that of the parent. */
bool is_own_memory(void);

/* ---- descriptors.c ---- */

/* What a descriptor is: USERDMA_FILE_; 0: not of RDMA, or unknown. */
uint32_t kind_of(int fd);
/* As kind_of, for a call: 0 also if the descriptor was closed unseen, and is another file's now. */
uint32_t kind_for_call(int fd);
/* The program has opened a file. Returns `fd`. */
int descriptor_opened(int fd, uint32_t kind, const char *path);
/* Finds out what a descriptor is that another process has opened. `record`: USERDMA_RECORD_RECEIVED or _KEPT. */
void descriptor_received(int fd, uint32_t record);
/* The descriptor may get to another process. */
void descriptor_passed(int fd);
/* Finds the descriptors that the program has inherited. */
void descriptors_begin(uint32_t record);

/* ---- calls.c ---- */

/* Number of calls that this thread has recorded. */
extern TLS uint32_t recorded_calls;

/* Memory to copy into a record. */
struct ranges {
    unsigned count;
    size_t bytes;
    struct userdma_range_record list[USERDMA_OBSERVE_MAX_RANGES];
};

/* Adds as much of the memory as a record may have. */
void add_range(struct ranges *ranges, uint64_t address, size_t length, uint32_t direction);
/* Records a CALL or RETURN. `kind`: USERDMA_RECORD_. */
void record_call(uint32_t kind, const struct userdma_call_record *facts, const struct ranges *ranges);

/* ---- stacks.c ---- */

void stacks_begin(void);
void stacks_in_child(void);
/* As stack_here; 0: stacks are not recorded. */
extern bool host_records_stacks;
#define STACK_HERE() (host_records_stacks ? stack_here() : 0)

/* ---- sanitizers.c ---- */

void sanitizers_begin(void);
/* `iova`: what requests call the start of the region. */
void sanitizers_registered(const struct ibv_mr *mr, uint64_t iova);
void sanitizers_deregistered(const struct ibv_mr *mr);
/* Before the provider posts a send. */
void sanitizers_posts(int fd, uint32_t number, const struct userdma_request_record *request,
                      const struct userdma_element_record *elements);
/* A completion was polled, or requests have ended otherwise. */
void sanitizers_polled(void);

/* ---- faults.c ---- */

/* Bits of USERDMA_ASK_: what the observer must be asked about. */
extern const uint32_t *host_asks;
#define MUST_ASK(kind) UNLIKELY(__atomic_load_n(host_asks, __ATOMIC_RELAXED) & (kind))
/* The library makes a call of its own, which is not the program's. */
extern TLS bool is_injecting;

void faults_begin(const uint32_t *asks);
void faults_in_child(void);
/* The error with which a call fails that has been recorded, after its delay; 0: it is executed. */
int fault_of_call(int fd);
/* The error of recorded posts of this thread to a queue; 0: none. `index`: the first refused one of the `count`. */
int fault_of_posts(int fd, uint32_t queue, uint32_t number, uint32_t count, uint32_t *index);
/* A queue pair that `fail_queue_pair` can move. */
void faults_note(struct ibv_qp *qp);
/* Moves a queue pair to ERR. Nothing happens if it was destroyed. */
void fail_queue_pair(struct ibv_context *context, uint32_t qpn);
/* Changes the statuses of completions that fail, at most USERDMA_OBSERVE_MAX_REQUESTS. */
void faults_of_poll(const struct ibv_cq *cq, struct ibv_wc *wc, uint32_t count);
/* Fills `verdicts` for at most as many completions. Returns their number; 0: none fails. */
uint32_t ask_completions(const struct ibv_cq *cq, struct userdma_polled_completion *list, uint32_t count,
                         struct userdma_completion_verdict *verdicts);

/* ---- queues.c ---- */

/*
 * Begins the record of requests before a post; NULL: it is dropped. Their elements follow each of them. `stack`: of the
 * post.
 */
struct userdma_request_record *post_begin(int fd, uint32_t queue, uint32_t number, uint32_t count, uint32_t elements,
                                          uint32_t stack);

/* ---- extended.c ---- */

/* The number of recorded requests of the batch of ibv_wr_* that this thread ends. */
uint32_t batch_posted(void);

#endif
