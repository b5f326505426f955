/*
 * The functions of providers, wrapped (verbs.c, polls.c, posts.c, builders.c): what each library does around them, and
 * what it notes of them.
 */
#ifndef USERDMA_RECORDER_VERBS_H
#define USERDMA_RECORDER_VERBS_H

#include "../protocol.h"
#include "recorder.h"
#include "slots.h"

FUNCTION_TYPE(post_send)
FUNCTION_TYPE(post_recv)
FUNCTION_TYPE(post_srq_recv)
FUNCTION_TYPE(req_notify_cq)
FUNCTION_TYPE(create_qp_ex)

/* ---- verbs.c, polls.c, builders.c ---- */

/* libibverbs' own function; NULL: the program has no libibverbs. */
void *verbs_original(const char *name);
/* NULL, with errno ENOSYS. */
void *verbs_missing(void);
/* Wraps the functions of a new extended CQ or QP. `operations`: IBV_QP_EX_WITH_… of the queue pair. */
void verbs_wrap_cq(struct ibv_cq_ex *cq);
void verbs_wrap_qp(struct ibv_qp_ex *qp, uint64_t operations);
/*
 * Functions of providers' libraries (own.c), as mlx5dv_create_qp. `own`: the provider's attributes, of `bytes` or any.
 */
typedef struct ibv_qp *create_own_qp_function(struct ibv_context *, struct ibv_qp_init_attr_ex *, void *own, uint32_t bytes);
typedef struct ibv_cq_ex *create_own_cq_function(struct ibv_context *, struct ibv_cq_init_attr_ex *, void *own,
                                                 uint32_t bytes);
struct ibv_qp *verbs_create_own_qp(const char *name, create_own_qp_function *original, struct ibv_context *context,
                                   struct ibv_qp_init_attr_ex *attributes, void *own, uint32_t bytes);
struct ibv_cq_ex *verbs_create_own_cq(const char *name, create_own_cq_function *original, struct ibv_context *context,
                                      struct ibv_cq_init_attr_ex *attributes, void *own, uint32_t bytes);
/*
 * A call on an object has ended: providers may have set functions of the queue pair or of its context again, as libmlx5
 * does in ibv_modify_qp. Those that were wrapped are wrapped again. `context`: that of the object; NULL: none.
 */
void verbs_keep_wrapped(uint32_t kind, void *object, const void *context);
void verbs_keep_qp_wrapped(struct ibv_qp *qp);
/* Each completion is told provider_completed. */
HIDDEN extern bool verbs_tells_completions;
/* The number of requests since this thread's ibv_wr_start for this queue pair; 0: none, or unknown. */
uint32_t batch_size(const struct ibv_qp_ex *qp);

/* The number of requests of a list. */
#define LENGTH(list)                                                                                                   \
    ({                                                                                                                 \
        uint32_t length = 0;                                                                                           \
        for (__typeof__(list) at = (list); at; at = at->next)                                                          \
            length++;                                                                                                  \
        length;                                                                                                        \
    })

/*
 * Sets `result` to that of `post`, an expression that posts `list`. If a fault rule refuses a request, `post` gets the
 * list before it, as of a provider that finds its queue full. `find`: an expression that returns 0, or the positive
 * errno of the request that fails, and sets `failing` to it and `before` to the one before it (NULL: it is the first).
 */
#define POST_BEFORE_FAULT(result, post, find)                                                                          \
    do {                                                                                                               \
        __typeof__(list) before = NULL, failing = NULL;                                                                \
        const int fault = (find);                                                                                      \
        (result) = 0;                                                                                                  \
        if (before)                                                                                                    \
            before->next = NULL;                                                                                       \
        if (before || fault == 0)                                                                                      \
            (result) = (post);                                                                                         \
        if (before)                                                                                                    \
            before->next = failing;                                                                                    \
        if ((result) == 0 && fault != 0) {                                                                             \
            (result) = fault;                                                                                          \
            if (bad)                                                                                                   \
                *bad = failing;                                                                                        \
        }                                                                                                              \
    } while (0)

/* ---- of each library: around the provider's functions. `original`: the provider's ---- */

/*
 * Whether the functions of a context are wrapped. `is_new`: the program gets the context; else its provider has filled
 * the table. May wrap further functions.
 */
bool provider_wraps(struct ibv_context *context, bool is_new);
int provider_post_send(post_send_function *original, struct ibv_qp *qp, struct ibv_send_wr *list,
                       struct ibv_send_wr **bad);
int provider_post_recv(post_recv_function *original, struct ibv_qp *qp, struct ibv_recv_wr *list,
                       struct ibv_recv_wr **bad);
int provider_post_srq_recv(post_srq_recv_function *original, struct ibv_srq *srq, struct ibv_recv_wr *list,
                           struct ibv_recv_wr **bad);
/*
 * Why a batch of ibv_wr_* or a bind is refused, before the provider posts it: a positive errno; 0: it is posted.
 * `wr_id`: of its last request. `opcode`: USERDMA_UNKNOWN_OPCODE of a batch.
 */
int provider_refusal(const struct ibv_qp *qp, uint64_t wr_id, int opcode);
/* A bind was added to a batch of ibv_wr_*. */
void provider_bind_built(struct ibv_qp_ex *qp, struct ibv_mw *mw, uint32_t rkey);
/* After an empty poll: whether the device has ended, and no poll will find more than the next one. */
bool provider_has_ended(const struct ibv_context *context);
/* A poll has found completions, if verbs_tells_completions. */
void provider_completed(void);
struct ibv_qp *provider_create_qp(create_qp_ex_function *original, struct ibv_context *context,
                                  struct ibv_qp_init_attr_ex *attributes);
/* The program gets a queue pair. `slots`: its max_send_wr. */
void provider_created_qp(struct ibv_qp *qp, uint32_t slots);

int provider_req_notify_cq(req_notify_cq_function *original, struct ibv_cq *cq, int solicited);

/* ---- around functions of libibverbs (functions.c). `original`: libibverbs' own ---- */

struct ibv_context *around_ibv_open_device(struct ibv_context *(*original)(struct ibv_device *),
                                           struct ibv_device *device);
struct ibv_context *around_ibv_import_device(struct ibv_context *(*original)(int), int fd);
struct ibv_qp *around_ibv_create_qp(struct ibv_qp *(*original)(struct ibv_pd *, struct ibv_qp_init_attr *),
                                    struct ibv_pd *pd, struct ibv_qp_init_attr *attributes);
int around_ibv_resize_cq(int (*original)(struct ibv_cq *, int), struct ibv_cq *cq, int entries);
/* Of each library. */
struct ibv_mr *around_ibv_reg_mr(struct ibv_mr *(*original)(struct ibv_pd *, void *, size_t, int), struct ibv_pd *pd,
                                 void *address, size_t length, int access);
struct ibv_mr *around_ibv_reg_mr_iova(struct ibv_mr *(*original)(struct ibv_pd *, void *, size_t, uint64_t, int),
                                      struct ibv_pd *pd, void *address, size_t length, uint64_t iova, int access);
struct ibv_mr *around_ibv_reg_mr_iova2(struct ibv_mr *(*original)(struct ibv_pd *, void *, size_t, uint64_t,
                                                                  unsigned int),
                                       struct ibv_pd *pd, void *address, size_t length, uint64_t iova,
                                       unsigned int access);
int around_ibv_rereg_mr(int (*original)(struct ibv_mr *, int, struct ibv_pd *, void *, size_t, int),
                        struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *address, size_t length, int access);
int around_ibv_dereg_mr(int (*original)(struct ibv_mr *), struct ibv_mr *mr);
struct ibv_comp_channel *around_ibv_create_comp_channel(struct ibv_comp_channel *(*original)(struct ibv_context *),
                                                        struct ibv_context *context);
int around_ibv_destroy_srq(int (*original)(struct ibv_srq *), struct ibv_srq *srq);
int around_ibv_modify_qp(int (*original)(struct ibv_qp *, struct ibv_qp_attr *, int), struct ibv_qp *qp,
                         struct ibv_qp_attr *attributes, int mask);
int around_ibv_destroy_qp(int (*original)(struct ibv_qp *), struct ibv_qp *qp);

/* The program takes memory of a queue or a doorbell from its provider, by the function `name`. */
void note_direct(const char *name);

/*
 * ---- of each library: notes, if recorder_is_on ----
 *
 * `frame`: the program's stack pointer when it called the verb. `queue`: USERDMA_POST_…; `number`: the queue pair
 * number, or the handle of the SRQ.
 */

/* Before posts, without the lock of the queue. Returns the number of the caller's stack. */
uint32_t note_posting_sends(const struct ibv_qp *qp, const struct ibv_send_wr *list, uintptr_t frame);
uint32_t note_posting_receives(int fd, uint32_t queue, uint32_t number, const struct ibv_recv_wr *list, uintptr_t frame);
/* Before the post of a list from `head` on, of which an earlier post has taken `taken` requests. */
void note_posted_again(int fd, uint32_t queue, uint32_t number, uint64_t head, uint32_t taken, uint32_t stack);
/*
 * Before the post of a list of `count` requests from `id` on, which the last post has posted as the `next` of `head`:
 * the `steps`th such list in a row.
 */
void note_posted_next(int fd, uint32_t queue, uint32_t number, uint64_t id, uint64_t head, uint32_t count,
                      uint32_t steps, uint32_t stack);
/*
 * Then, with the lock of the queue (locks.h), before the provider posts. `is_ordered`: the lock is held; else nothing
 * may be matched with the queue by position.
 */
void note_sends(const struct ibv_qp *qp, const struct ibv_send_wr *list, uintptr_t frame, uint32_t stack,
                bool is_ordered);
void note_receives(int fd, uint32_t queue, uint32_t number, const struct ibv_recv_wr *list, uintptr_t frame,
                   uint32_t stack, bool is_ordered);
/*
 * Still with the lock: the last `count` noted requests were refused; `refused`: the first of them, of a batch of
 * ibv_wr_* the last; `stack`: of the post. Then, without it, that is told.
 */
void note_refused(int fd, struct userdma_refused_post *refused, uint32_t count, uint32_t stack);
void tell_refused(int fd, const struct userdma_refused_post *refused, uint32_t stack);
/* Before a poll. */
void note_polling(const struct ibv_cq *cq, uintptr_t frame);
/* It has found `count` completions of at most `entries`; as waiting_found_by(). */
void note_found(uint32_t entries, uint32_t count, const void *caller);
/* How many of `entries` completions the program's array has room for, as far as is known; less is reported. */
int note_array(const struct ibv_cq *cq, int entries, const struct ibv_wc *wc, uintptr_t frame);
/* A poll has returned `count` completions, more than 0. */
void note_completions(const struct ibv_cq *cq, struct ibv_wc *wc, uint32_t count);
/* A poll of an extended CQ has returned one; the poll of several ends. */
void note_completion(struct ibv_cq_ex *cq);
void note_poll_end(const struct ibv_cq_ex *cq);
/*
 * ibv_wr_* have added a request, its elements or its destination to the batch, for which the lock is held if
 * `is_ordered`. `is_own`: the list is the program's.
 */
void note_built(struct ibv_qp_ex *qp, int opcode, uint32_t rkey, uint64_t address, uint32_t immediate, bool is_ordered);
void note_elements(const struct ibv_qp_ex *qp, const struct ibv_sge *list, size_t count, uintptr_t frame, bool is_own);
void note_destination(const struct ibv_qp_ex *qp, uint32_t qpn, uint32_t qkey);
/* Before a batch is posted. Returns the number of the caller's stack. */
uint32_t note_batch(const struct ibv_qp_ex *qp, uintptr_t frame, bool is_ordered);
/* The requests that were built, batch_size, are dropped. */
void note_aborted(const struct ibv_qp_ex *qp);

#endif
