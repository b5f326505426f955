/*
 * Records of posts and polls (../recorder/verbs.h).
 */
#define _GNU_SOURCE
#include "host.h"

#include "../recorder/objects.h"
#include "../recorder/batches.h"
#include "../recorder/orders.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../recorder/acknowledgements.h"
#include "../recorder/refusals.h"
#include "../sanitizers/sanitizers.h"

/* ---- posts ---- */

struct userdma_request_record *post_begin(int fd, uint32_t queue, uint32_t number, uint32_t count, uint32_t elements,
                                          uint32_t stack)
{
    struct made {
        struct userdma_record record;
        struct userdma_post_record post;
        struct userdma_request_record requests[];
    };
    struct made *made =
        record_begin(USERDMA_RECORD_POST, sizeof *made + count * sizeof made->requests[0] +
                                              elements * sizeof(struct userdma_element_record));
    if (!made)
        return NULL;
    made->record.stack = stack;
    made->post = (struct userdma_post_record){.fd = fd, .queue = queue, .number = number, .count = count};
    return made->requests;
}

/* Ends the POST whose requests begin at `first` and end before `end`. */
static void post_end(struct userdma_request_record *first, void *end)
{
    char *record = (char *)first - sizeof(struct userdma_post_record) - sizeof(struct userdma_record);
    record_end(record, (size_t)((char *)end - record));
}

void note_refused(int fd, struct userdma_refused_post *refused, uint32_t count, uint32_t stack)
{
    struct {
        struct userdma_record record;
        struct userdma_post_record post;
    } *made = record_begin(USERDMA_RECORD_REFUSED, sizeof *made);
    if (!made)
        return;
    made->record.stack = stack;
    made->post = (struct userdma_post_record){.fd = fd,
                                              .queue = refused->queue,
                                              .number = refused->number,
                                              .count = count,
                                              .error = (int)refused->error};
    record_end(made, sizeof *made);
}

void tell_refused(int fd, const struct userdma_refused_post *refused, uint32_t stack)
{
    (void)fd, (void)refused, (void)stack;
}

void note_refusal(int fd, const struct userdma_refused_by_library *refusal)
{
    const uint32_t stack = STACK_HERE();
    struct {
        struct userdma_record record;
        struct userdma_refusal_record refusal;
    } *made = record_begin(USERDMA_RECORD_REFUSAL, sizeof *made);
    if (!made)
        return;
    made->record.stack = stack;
    made->refusal = (struct userdma_refusal_record){.fd = fd,
                                                    .error = refusal->error,
                                                    .object = refusal->object,
                                                    .fact0 = refusal->fact0,
                                                    .fact1 = refusal->fact1,
                                                    .fact2 = refusal->fact2,
                                                    .fact3 = refusal->fact3};
    _Static_assert(sizeof made->refusal.function == sizeof refusal->function, "both hold the same names");
    memcpy(made->refusal.function, refusal->function, sizeof refusal->function);
    record_end(made, sizeof *made);
}

/* Tells what only `userdma check` with a device of ours finds. */
void note_posted_again(int fd, uint32_t queue, uint32_t number, uint64_t head, uint32_t taken, uint32_t stack)
{
    (void)fd, (void)queue, (void)number, (void)head, (void)taken, (void)stack;
}

void note_posted_next(int fd, uint32_t queue, uint32_t number, uint64_t id, uint64_t head, uint32_t count,
                      uint32_t steps, uint32_t stack)
{
    (void)fd, (void)queue, (void)number, (void)id, (void)head, (void)count, (void)steps, (void)stack;
}

/* Needs a device of ours: the events of an adapter are not counted. */
void note_overacknowledged(int fd, uint32_t cq, uint32_t acknowledged, uint32_t read, uint32_t other)
{
    (void)fd, (void)cq, (void)acknowledged, (void)read, (void)other;
}

void note_async_overacknowledged(int fd, uint32_t queue, uint32_t number, uint32_t read)
{
    (void)fd, (void)queue, (void)number, (void)read;
}

/* `mistake`: of `size` bytes, as the struct of the session protocol. */
static void record_mistake(uint32_t kind, int fd, uint32_t stack, const void *mistake, size_t size)
{
    struct {
        struct userdma_record record;
        struct userdma_open_record context;
    } *made = record_begin(kind, sizeof *made + size);
    if (!made)
        return;
    made->record.stack = stack;
    made->context.fd = fd;
    memcpy(made + 1, mistake, size);
    record_end(made, sizeof *made + size);
}

void note_batch_mistake(int fd, const struct userdma_batch_mistaken *mistake)
{
    record_mistake(USERDMA_RECORD_BATCH, fd, STACK_HERE(), mistake, sizeof *mistake);
}

void note_batch_started(const struct ibv_qp *qp, const void *caller)
{
    (void)qp, (void)caller;
}

void note_batch_ended(void)
{
}

void *note_wait_begins(uint32_t kind, int fd)
{
    (void)kind, (void)fd;
    return NULL;
}

void note_wait_ends(void *wait)
{
    (void)wait;
}

void note_order(int fd, const struct userdma_misordered *mistake)
{
    record_mistake(USERDMA_RECORD_ORDER, fd, STACK_HERE(), mistake, sizeof *mistake);
}

static uint32_t bounded(int elements)
{
    const uint32_t count = elements < 0 ? 0 : (uint32_t)elements;
    return count > USERDMA_OBSERVE_MAX_ELEMENTS ? USERDMA_OBSERVE_MAX_ELEMENTS : count;
}

static void *put_elements(void *at, const struct ibv_sge *list, uint32_t count)
{
    struct userdma_element_record *elements = at;
    for (uint32_t i = 0; i < count; i++)
        elements[i] = (struct userdma_element_record){list[i].addr, list[i].length, list[i].lkey};
    return elements + count;
}

/* Counts at most OBSERVE_MAX_REQUESTS requests of a list, and their elements. `rest`: the request after them. */
#define COUNT(list, rest, elements)                                                                                    \
    ({                                                                                                                 \
        uint32_t requests = 0;                                                                                         \
        for ((rest) = (list), (elements) = 0; (rest) && requests < USERDMA_OBSERVE_MAX_REQUESTS;                       \
             (rest) = (rest)->next, requests++)                                                                        \
            (elements) += bounded((rest)->num_sge);                                                                    \
        requests;                                                                                                      \
    })

static bool has_remote_address(enum ibv_wr_opcode opcode)
{
    return opcode == IBV_WR_RDMA_WRITE || opcode == IBV_WR_RDMA_WRITE_WITH_IMM || opcode == IBV_WR_RDMA_READ;
}

static void put_send(struct userdma_request_record *made, const struct ibv_qp *qp, const struct ibv_send_wr *wr)
{
    *made = (struct userdma_request_record){
        .wr_id = wr->wr_id, .opcode = (int)wr->opcode, .flags = wr->send_flags, .elements = bounded(wr->num_sge)};
    if (wr->opcode == IBV_WR_BIND_MW)
        made->elements = 0;
    if (has_remote_address(wr->opcode)) {
        made->remote_address = wr->wr.rdma.remote_addr;
        made->rkey = wr->wr.rdma.rkey;
    } else if (wr->opcode == IBV_WR_ATOMIC_CMP_AND_SWP || wr->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        made->remote_address = wr->wr.atomic.remote_addr;
        made->rkey = wr->wr.atomic.rkey;
    } else if (qp->qp_type == IBV_QPT_UD) {
        made->dest_qpn = wr->wr.ud.remote_qpn;
        made->qkey = wr->wr.ud.remote_qkey;
    }
}

uint32_t note_posting_sends(const struct ibv_qp *qp, const struct ibv_send_wr *list, uintptr_t frame)
{
    (void)qp, (void)list, (void)frame;
    return STACK_HERE();
}

uint32_t note_posting_receives(int fd, uint32_t queue, uint32_t number, const struct ibv_recv_wr *list, uintptr_t frame)
{
    (void)fd, (void)queue, (void)number, (void)list, (void)frame;
    return STACK_HERE();
}

/* Posts are matched with completions by their order, also if it may be wrong. */
void note_sends(const struct ibv_qp *qp, const struct ibv_send_wr *list, uintptr_t frame, uint32_t stack,
                bool is_ordered)
{
    (void)frame, (void)is_ordered;
    while (list) {
        const struct ibv_send_wr *rest;
        uint32_t elements;
        const uint32_t count = COUNT(list, rest, elements);
        struct userdma_request_record *first =
            post_begin(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num, count, elements, stack);
        void *at = first;
        for (; first && list != rest; list = list->next) {
            struct userdma_request_record *made = at;
            put_send(made, qp, list);
            at = put_elements(made + 1, list->sg_list, made->elements);
            sanitizers_posts(qp->context->cmd_fd, qp->qp_num, made, (void *)(made + 1));
        }
        if (first)
            post_end(first, at);
        list = rest;
    }
}

void note_receives(int fd, uint32_t queue, uint32_t number, const struct ibv_recv_wr *list, uintptr_t frame,
                   uint32_t stack, bool is_ordered)
{
    (void)frame, (void)is_ordered;
    while (list) {
        const struct ibv_recv_wr *rest;
        uint32_t elements;
        const uint32_t count = COUNT(list, rest, elements);
        struct userdma_request_record *first = post_begin(fd, queue, number, count, elements, stack);
        void *at = first;
        for (; first && list != rest; list = list->next) {
            struct userdma_request_record *made = at;
            *made = (struct userdma_request_record){
                .wr_id = list->wr_id, .opcode = -1, .elements = bounded(list->num_sge)};
            at = put_elements(made + 1, list->sg_list, made->elements);
        }
        if (first)
            post_end(first, at);
        list = rest;
    }
}

/* As `find` of POST_BEFORE_FAULT. */
#define FAULT_IN_LIST(fd, queue, number)                                                                               \
    ({                                                                                                                 \
        uint32_t index = 0;                                                                                            \
        const int error =                                                                                              \
            MUST_ASK(USERDMA_ASK_POST) ? fault_of_posts(fd, queue, number, LENGTH(list), &index) : 0;                  \
        for (failing = list; error != 0 && index > 0; index--, failing = failing->next)                                \
            before = failing;                                                                                          \
        error;                                                                                                         \
    })

int provider_post_send(post_send_function *original, struct ibv_qp *qp, struct ibv_send_wr *list,
                       struct ibv_send_wr **bad)
{
    int error;
    if (MUST_ASK(USERDMA_ASK_COMPLETIONS))
        faults_note(qp);
    POST_BEFORE_FAULT(error, original(qp, list, bad),
                      FAULT_IN_LIST(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num));
    return error;
}

int provider_post_recv(post_recv_function *original, struct ibv_qp *qp, struct ibv_recv_wr *list,
                       struct ibv_recv_wr **bad)
{
    int error;
    if (MUST_ASK(USERDMA_ASK_COMPLETIONS))
        faults_note(qp);
    POST_BEFORE_FAULT(error, original(qp, list, bad),
                      FAULT_IN_LIST(qp->context->cmd_fd, USERDMA_POST_RECEIVE, qp->qp_num));
    return error;
}

int provider_post_srq_recv(post_srq_recv_function *original, struct ibv_srq *srq, struct ibv_recv_wr *list,
                           struct ibv_recv_wr **bad)
{
    int error;
    POST_BEFORE_FAULT(error, original(srq, list, bad),
                      FAULT_IN_LIST(srq->context->cmd_fd, USERDMA_POST_SHARED, srq->handle));
    return error;
}

/* A bind, or the batch of extended.c. */
int provider_refusal(const struct ibv_qp *qp, uint64_t wr_id, int opcode)
{
    uint32_t index;
    const uint32_t count = opcode == IBV_WR_BIND_MW ? 1 : batch_posted();
    (void)wr_id;
    if (MUST_ASK(USERDMA_ASK_COMPLETIONS))
        faults_note((struct ibv_qp *)(uintptr_t)qp);
    return MUST_ASK(USERDMA_ASK_POST) && count > 0
               ? fault_of_posts(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num, count, &index)
               : 0;
}

void provider_bind_built(struct ibv_qp_ex *qp, struct ibv_mw *mw, uint32_t rkey)
{
    (void)qp, (void)mw, (void)rkey;
}

struct ibv_qp *provider_create_qp(create_qp_ex_function *original, struct ibv_context *context,
                                  struct ibv_qp_init_attr_ex *attributes)
{
    return original(context, attributes);
}

/* ---- polls ---- */

bool provider_has_ended(const struct ibv_context *context)
{
    (void)context;
    return false;
}

void provider_completed(void)
{
}

int note_array(const struct ibv_cq *cq, int entries, const struct ibv_wc *wc, uintptr_t frame)
{
    (void)cq, (void)wc, (void)frame;
    return entries;
}

void note_polling(const struct ibv_cq *cq, uintptr_t frame)
{
    (void)cq, (void)frame;
}

void note_found(uint32_t entries, uint32_t count, const void *caller)
{
    (void)entries, (void)count, (void)caller;
}

static void note_some(const struct ibv_cq *cq, struct ibv_wc *wc, uint32_t count)
{
    if (MUST_ASK(USERDMA_ASK_COMPLETIONS))
        faults_of_poll(cq, wc, count);
    struct {
        struct userdma_record record;
        struct userdma_poll_record poll;
        struct userdma_completion_record completions[];
    } *made = record_begin(USERDMA_RECORD_POLL, sizeof *made + count * sizeof made->completions[0]);
    if (!made)
        return;
    made->poll = (struct userdma_poll_record){cq->context->cmd_fd, cq->handle, count, 0};
    for (uint32_t i = 0; i < count; i++)
        made->completions[i] = (struct userdma_completion_record){
            wc[i].wr_id,    wc[i].status, wc[i].opcode,  wc[i].vendor_err,
            wc[i].byte_len, wc[i].qp_num, wc[i].wc_flags};
    record_end(made, sizeof *made + count * sizeof made->completions[0]);
    for (uint32_t i = 0; UNLIKELY(flight_is_on) && i < count; i++)
        flight_completed(wc[i].status);
}

void note_completions(const struct ibv_cq *cq, struct ibv_wc *wc, uint32_t count)
{
    if (count > 0)
        sanitizers_polled();
    for (; count > USERDMA_OBSERVE_MAX_REQUESTS; count -= USERDMA_OBSERVE_MAX_REQUESTS) {
        note_some(cq, wc, USERDMA_OBSERVE_MAX_REQUESTS);
        wc += USERDMA_OBSERVE_MAX_REQUESTS;
    }
    note_some(cq, wc, count);
}

/* A provider that arms a CQ by a call has recorded the call. */
int provider_req_notify_cq(req_notify_cq_function *original, struct ibv_cq *cq, int solicited)
{
    const uint32_t before = recorded_calls;
    const int error = original(cq, solicited);
    if (error != 0 || recorded_calls != before)
        return error;
    const uint32_t stack = STACK_HERE();
    struct {
        struct userdma_record record;
        struct userdma_poll_record poll;
    } *made = record_begin(USERDMA_RECORD_NOTIFY, sizeof *made);
    if (made) {
        made->record.stack = stack;
        made->poll = (struct userdma_poll_record){cq->context->cmd_fd, cq->handle, 0, solicited != 0};
        record_end(made, sizeof *made);
    }
    return error;
}

/* ---- contexts ---- */

/* A descriptor of a context's events. */
static void event_descriptor(const struct ibv_context *context, int fd, uint32_t kind)
{
    char number[16];
    snprintf(number, sizeof number, "%d", context->cmd_fd);
    descriptor_opened(fd, kind, number);
}

bool provider_wraps(struct ibv_context *context, bool is_new)
{
    if (!recorder_is_on)
        return false;
    /* The context's device has its name. */
    if (is_new && context->device) {
        if (kind_of(context->cmd_fd) == 0)
            descriptor_received(context->cmd_fd, USERDMA_RECORD_RECEIVED);
        record_text(USERDMA_RECORD_CONTEXT, context->cmd_fd, 0, context->device->name);
        if (UNLIKELY(sanitizers_watch))
            sanitizers_opened(context->cmd_fd, context->device->name);
        event_descriptor(context, context->async_fd, USERDMA_FILE_ASYNC);
    }
    return true;
}

struct ibv_comp_channel *around_ibv_create_comp_channel(struct ibv_comp_channel *(*original)(struct ibv_context *),
                                                        struct ibv_context *context)
{
    struct ibv_comp_channel *channel = original(context);
    if (channel)
        event_descriptor(context, channel->fd, USERDMA_FILE_COMPLETIONS);
    return channel;
}

/* ---- functions of libibverbs ---- */

struct ibv_mr *around_ibv_reg_mr(struct ibv_mr *(*original)(struct ibv_pd *, void *, size_t, int), struct ibv_pd *pd,
                                 void *address, size_t length, int access)
{
    struct ibv_mr *const mr = original(pd, address, length, access);
    sanitizers_registered(mr, (uintptr_t)address);
    return mr;
}

struct ibv_mr *around_ibv_reg_mr_iova(struct ibv_mr *(*original)(struct ibv_pd *, void *, size_t, uint64_t, int),
                                      struct ibv_pd *pd, void *address, size_t length, uint64_t iova, int access)
{
    struct ibv_mr *const mr = original(pd, address, length, iova, access);
    sanitizers_registered(mr, iova);
    return mr;
}

struct ibv_mr *around_ibv_reg_mr_iova2(struct ibv_mr *(*original)(struct ibv_pd *, void *, size_t, uint64_t,
                                                                  unsigned int),
                                       struct ibv_pd *pd, void *address, size_t length, uint64_t iova,
                                       unsigned int access)
{
    struct ibv_mr *const mr = original(pd, address, length, iova, access);
    sanitizers_registered(mr, iova);
    return mr;
}

int around_ibv_rereg_mr(int (*original)(struct ibv_mr *, int, struct ibv_pd *, void *, size_t, int),
                        struct ibv_mr *mr, int flags, struct ibv_pd *pd, void *address, size_t length, int access)
{
    const int error = original(mr, flags, pd, address, length, access);
    if (error == 0)
        sanitizers_registered(mr, (uintptr_t)mr->addr);
    return error;
}

int around_ibv_dereg_mr(int (*original)(struct ibv_mr *), struct ibv_mr *mr)
{
    const int error = original(mr);
    if (error == 0)
        sanitizers_deregistered(mr); /* only the address of `mr` is used */
    return error;
}

int around_ibv_destroy_srq(int (*original)(struct ibv_srq *), struct ibv_srq *srq)
{
    return original(srq);
}

int around_ibv_modify_qp(int (*original)(struct ibv_qp *, struct ibv_qp_attr *, int), struct ibv_qp *qp,
                         struct ibv_qp_attr *attributes, int mask)
{
    const int error = original(qp, attributes, mask);
    sanitizers_polled();
    return error;
}

int around_ibv_destroy_qp(int (*original)(struct ibv_qp *), struct ibv_qp *qp)
{
    if (!recorder_is_on || !qp)
        return original(qp);
    batches_destroying(qp);
    const int error = original(qp);
    sanitizers_polled();
    if (error == 0)
        batches_destroyed(qp); /* only the address of `qp` is used */
    return error;
}

void note_direct(const char *name)
{
    sanitizers_bypassed();
    record_text(USERDMA_RECORD_DIRECT, -1, 0, name);
}

/* ---- destroyed objects ---- */

void note_call(const void *context, struct object_use use, bool destroys)
{
    (void)context, (void)use, (void)destroys;
}

void note_destroyed(struct object_use use)
{
    (void)use;
}

void note_gone(const struct gone_use *use, uint32_t stack)
{
    const size_t length = strlen(use->function);
    struct {
        struct userdma_record record;
        struct userdma_gone_record gone;
        char function[];
    } *made = record_begin(USERDMA_RECORD_GONE, sizeof *made + length);
    if (!made)
        return;
    made->record.stack = stack;
    made->gone = (struct userdma_gone_record){.age = use->value ? use->value : use->age,
                                              .object_kind = use->kind,
                                              .number = use->number,
                                              .use = use->use,
                                              .destroyed = use->destroyed,
                                              .owner = use->is_owner};
    memcpy(made->function, use->function, length);
    record_end(made, sizeof *made + length);
}
