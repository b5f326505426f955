/*
 * Posts and polls: the provider's functions in the public tables of libibverbs' contexts, wrapped. Each function of a
 * provider gets a numbered slot with a wrapper of its own, so a call needs no lookup.
 */
#define _GNU_SOURCE
#include "host.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Maximum different functions of one kind in a program: one for each provider, and libibverbs' own. */
#define SLOTS 8

#define KINDS(X)                                                                                                       \
    X(post_send, int, (struct ibv_qp * object, struct ibv_send_wr *list, struct ibv_send_wr **bad), (object, list, bad)) \
    X(post_recv, int, (struct ibv_qp * object, struct ibv_recv_wr *list, struct ibv_recv_wr **bad), (object, list, bad)) \
    X(post_srq_recv, int, (struct ibv_srq * object, struct ibv_recv_wr *list, struct ibv_recv_wr **bad),               \
      (object, list, bad))                                                                                             \
    X(poll_cq, int, (struct ibv_cq * object, int entries, struct ibv_wc *wc), (object, entries, wc))                   \
    X(req_notify_cq, int, (struct ibv_cq * object, int solicited), (object, solicited))                                \
    X(bind_mw, int, (struct ibv_qp * object, struct ibv_mw *mw, struct ibv_mw_bind *bind), (object, mw, bind))         \
    X(create_cq_ex, struct ibv_cq_ex *, (struct ibv_context * object, struct ibv_cq_init_attr_ex *attributes),         \
      (object, attributes))                                                                                            \
    X(create_qp_ex, struct ibv_qp *, (struct ibv_context * object, struct ibv_qp_init_attr_ex *attributes),            \
      (object, attributes))

#define ORIGINAL(name, type, parameters, arguments)                                                                    \
    typedef type name##_function parameters;                                                                           \
    static name##_function *name##_of[SLOTS];
KINDS(ORIGINAL)

/* ---- records ---- */

struct userdma_request_record *post_begin(int fd, uint32_t queue, uint32_t number, uint32_t count, uint32_t elements)
{
    struct made {
        struct userdma_record record;
        struct userdma_post_record post;
        struct userdma_request_record requests[];
    };
    const uint32_t stack = stack_here();
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

void post_refused(int fd, uint32_t queue, uint32_t number, uint32_t count, int error)
{
    struct {
        struct userdma_record record;
        struct userdma_post_record post;
    } *made;
    const uint32_t stack = stack_here();
    made = record_begin(USERDMA_RECORD_REFUSED, sizeof *made);
    if (!made)
        return;
    made->record.stack = stack;
    made->post =
        (struct userdma_post_record){.fd = fd, .queue = queue, .number = number, .count = count, .error = error};
    record_end(made, sizeof *made);
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

static void note_sends(const struct ibv_qp *qp, const struct ibv_send_wr *list)
{
    while (list) {
        const struct ibv_send_wr *rest;
        uint32_t elements;
        const uint32_t count = COUNT(list, rest, elements);
        struct userdma_request_record *first =
            post_begin(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num, count, elements);
        void *at = first;
        for (; first && list != rest; list = list->next) {
            struct userdma_request_record *made = at;
            put_send(made, qp, list);
            at = put_elements(made + 1, list->sg_list, made->elements);
        }
        if (first)
            post_end(first, at);
        list = rest;
    }
}

static void note_receives(int fd, uint32_t queue, uint32_t number, const struct ibv_recv_wr *list)
{
    while (list) {
        const struct ibv_recv_wr *rest;
        uint32_t elements;
        const uint32_t count = COUNT(list, rest, elements);
        struct userdma_request_record *first = post_begin(fd, queue, number, count, elements);
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

#define LENGTH(list)                                                                                                   \
    ({                                                                                                                 \
        uint32_t length = 0;                                                                                           \
        for (__typeof__(list) at = (list); at; at = at->next)                                                          \
            length++;                                                                                                  \
        length;                                                                                                        \
    })

/* ---- wrappers ---- */

/*
 * Calls `post`, an expression that posts `list`, which has been recorded. If a fault rule refuses a request, `post` gets
 * the list before it, as of a provider that finds its queue full.
 */
#define POST(result, post, fd, queue, number)                                                                          \
    do {                                                                                                               \
        uint32_t index = 0;                                                                                            \
        const int fault =                                                                                              \
            MUST_ASK(USERDMA_ASK_POST) ? fault_of_posts(fd, queue, number, LENGTH(list), &index) : 0;                  \
        __typeof__(list) before = NULL, failing = list;                                                                \
        for (; fault != 0 && index > 0; index--, failing = failing->next)                                              \
            before = failing;                                                                                          \
        if (before)                                                                                                    \
            before->next = NULL;                                                                                       \
        (result) = before || fault == 0 ? (post) : 0;                                                                  \
        if (before)                                                                                                    \
            before->next = failing;                                                                                    \
        if (UNLIKELY(fault != 0) && (result) == 0) {                                                                   \
            (result) = fault;                                                                                          \
            if (bad)                                                                                                   \
                *bad = failing;                                                                                        \
        }                                                                                                              \
        if (UNLIKELY((result) != 0))                                                                                   \
            post_refused(fd, queue, number, LENGTH(bad && *bad ? *bad : list), result);                                \
    } while (0)

static int post_send(post_send_function *original, struct ibv_qp *qp, struct ibv_send_wr *list,
                     struct ibv_send_wr **bad)
{
    int error;
    if (MUST_ASK(USERDMA_ASK_COMPLETIONS))
        faults_note(qp);
    note_sends(qp, list);
    POST(error, original(qp, list, bad), qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num);
    return error;
}

static int post_recv(post_recv_function *original, struct ibv_qp *qp, struct ibv_recv_wr *list,
                     struct ibv_recv_wr **bad)
{
    int error;
    if (MUST_ASK(USERDMA_ASK_COMPLETIONS))
        faults_note(qp);
    note_receives(qp->context->cmd_fd, USERDMA_POST_RECEIVE, qp->qp_num, list);
    POST(error, original(qp, list, bad), qp->context->cmd_fd, USERDMA_POST_RECEIVE, qp->qp_num);
    return error;
}

static int post_srq_recv(post_srq_recv_function *original, struct ibv_srq *srq, struct ibv_recv_wr *list,
                         struct ibv_recv_wr **bad)
{
    int error;
    note_receives(srq->context->cmd_fd, USERDMA_POST_SHARED, srq->handle, list);
    POST(error, original(srq, list, bad), srq->context->cmd_fd, USERDMA_POST_SHARED, srq->handle);
    return error;
}

static int bind_mw(bind_mw_function *original, struct ibv_qp *qp, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
    /* A provider that posts the bind by post_send of its own does not come by the table. */
    const struct ibv_send_wr posted = {.wr_id = bind->wr_id, .opcode = IBV_WR_BIND_MW, .send_flags = bind->send_flags};
    note_sends(qp, &posted);
    uint32_t index;
    const int fault = MUST_ASK(USERDMA_ASK_POST)
                          ? fault_of_posts(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num, 1, &index)
                          : 0;
    const int error = fault != 0 ? fault : original(qp, mw, bind);
    if (UNLIKELY(error != 0))
        post_refused(qp->context->cmd_fd, USERDMA_POST_SEND, qp->qp_num, 1, error);
    return error;
}

static void note_completions(const struct ibv_cq *cq, const struct ibv_wc *wc, uint32_t count)
{
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
}

static int poll_cq(poll_cq_function *original, struct ibv_cq *cq, int entries, struct ibv_wc *wc)
{
    const int found = original(cq, entries, wc);
    uint32_t left = found < 0 ? 0 : (uint32_t)found;
    while (left > 0) {
        const uint32_t count = left < USERDMA_OBSERVE_MAX_REQUESTS ? left : USERDMA_OBSERVE_MAX_REQUESTS;
        if (MUST_ASK(USERDMA_ASK_COMPLETIONS))
            faults_of_poll(cq, wc, count);
        note_completions(cq, wc, count);
        wc += count;
        left -= count;
    }
    return found;
}

/* A provider that arms a CQ by a call has recorded the call. */
static int req_notify_cq(req_notify_cq_function *original, struct ibv_cq *cq, int solicited)
{
    const uint32_t before = recorded_calls;
    const int error = original(cq, solicited);
    if (error != 0 || recorded_calls != before)
        return error;
    const uint32_t stack = stack_here();
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

static struct ibv_cq_ex *create_cq_ex(create_cq_ex_function *original, struct ibv_context *context,
                                      struct ibv_cq_init_attr_ex *attributes)
{
    /* The number of the queue pair tells whose completion it is. */
    struct ibv_cq_init_attr_ex with_qp_num = *attributes;
    with_qp_num.wc_flags |= IBV_WC_EX_WITH_QP_NUM;
    struct ibv_cq_ex *cq = original(context, &with_qp_num);
    if (!cq && with_qp_num.wc_flags != attributes->wc_flags)
        cq = original(context, attributes);
    if (cq)
        extended_cq(cq);
    return cq;
}

static struct ibv_qp *create_qp_ex(create_qp_ex_function *original, struct ibv_context *context,
                                   struct ibv_qp_init_attr_ex *attributes)
{
    struct ibv_qp *qp = original(context, attributes);
    if (qp)
        faults_note(qp);
    if (qp && attributes->comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS)
        extended_qp((struct ibv_qp_ex *)qp, attributes->send_ops_flags);
    return qp;
}

#define WRAPPER(n, name, type, parameters, arguments)                                                                  \
    static type name##_##n parameters                                                                                  \
    {                                                                                                                  \
        return name(name##_of[n], FIRST arguments);                                                                    \
    }
#define FIRST(...) __VA_ARGS__
#define WRAPPERS(name, type, parameters, arguments)                                                                    \
    WRAPPER(0, name, type, parameters, arguments)                                                                      \
    WRAPPER(1, name, type, parameters, arguments)                                                                      \
    WRAPPER(2, name, type, parameters, arguments)                                                                      \
    WRAPPER(3, name, type, parameters, arguments)                                                                      \
    WRAPPER(4, name, type, parameters, arguments)                                                                      \
    WRAPPER(5, name, type, parameters, arguments)                                                                      \
    WRAPPER(6, name, type, parameters, arguments)                                                                      \
    WRAPPER(7, name, type, parameters, arguments)                                                                      \
    static name##_function *const name##_wrapper[SLOTS] = {name##_0, name##_1, name##_2, name##_3,                     \
                                                           name##_4, name##_5, name##_6, name##_7};
KINDS(WRAPPERS)

/* Replaces `function` by the wrapper of its slot, unless all slots are in use or `function` is a wrapper. */
#define WRAP(function, name)                                                                                           \
    do {                                                                                                               \
        name##_function *current = (function);                                                                         \
        for (int slot = 0; current && slot < SLOTS && current != name##_wrapper[slot]; slot++) {                       \
            name##_function *present = NULL;                                                                           \
            if (__atomic_compare_exchange_n(&name##_of[slot], &present, current, false, __ATOMIC_ACQ_REL,              \
                                            __ATOMIC_ACQUIRE) ||                                                       \
                present == current) {                                                                                  \
                (function) = name##_wrapper[slot];                                                                     \
                break;                                                                                                 \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

/* A descriptor of a context's events. */
static void event_descriptor(const struct ibv_context *context, int fd, uint32_t kind)
{
    char number[16];
    snprintf(number, sizeof number, "%d", context->cmd_fd);
    descriptor_opened(fd, kind, number);
}

/* Wraps the functions of a context. `is_new`: the program gets the context, whose device has its name. */
static struct ibv_context *wrap(struct ibv_context *context, bool is_new)
{
    if (!context || !host_is_active)
        return context;
    if (is_new && context->device) {
        if (kind_of(context->cmd_fd) == 0)
            descriptor_received(context->cmd_fd, USERDMA_RECORD_RECEIVED);
        record_text(USERDMA_RECORD_CONTEXT, context->cmd_fd, 0, context->device->name);
        event_descriptor(context, context->async_fd, USERDMA_FILE_ASYNC);
    }
    WRAP(context->ops.poll_cq, poll_cq);
    WRAP(context->ops.req_notify_cq, req_notify_cq);
    WRAP(context->ops.post_send, post_send);
    WRAP(context->ops.post_recv, post_recv);
    WRAP(context->ops.post_srq_recv, post_srq_recv);
    WRAP(context->ops.bind_mw, bind_mw);
    struct verbs_context *extended = verbs_get_ctx_op(context, create_cq_ex);
    if (extended)
        WRAP(extended->create_cq_ex, create_cq_ex);
    extended = verbs_get_ctx_op(context, create_qp_ex);
    if (extended)
        WRAP(extended->create_qp_ex, create_qp_ex);
    return context;
}

/*
 * Also of a libibverbs that was loaded with RTLD_LOCAL. Some functions have an older version, for binaries of
 * libibverbs 1.0; before glibc 2.36, dlsym with RTLD_NEXT finds this one.
 */
void *verbs_original(const char *name)
{
    void *found = dlvsym(RTLD_NEXT, name, "IBVERBS_1.1");
    if (!found)
        found = dlsym(RTLD_NEXT, name);
    if (found)
        return found;
    void *library = NEXT(dlopen)("libibverbs.so.1", RTLD_LAZY | RTLD_NOLOAD);
    if (!library)
        return NULL;
    found = dlsym(library, name);
    NEXT(dlclose)(library);
    return found;
}

EXPORT struct ibv_context *ibv_open_device(struct ibv_device *device)
{
    __typeof__(&ibv_open_device) original = verbs_original("ibv_open_device");
    if (!original) {
        errno = ENOSYS;
        return NULL;
    }
    return wrap(original(device), true);
}

EXPORT struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
    __typeof__(&ibv_create_comp_channel) original = verbs_original("ibv_create_comp_channel");
    if (!original) {
        errno = ENOSYS;
        return NULL;
    }
    struct ibv_comp_channel *channel = original(context);
    if (channel)
        event_descriptor(context, channel->fd, USERDMA_FILE_COMPLETIONS);
    return channel;
}

EXPORT struct ibv_context *ibv_import_device(int fd)
{
    __typeof__(&ibv_import_device) original = verbs_original("ibv_import_device");
    if (!original) {
        errno = ENOSYS;
        return NULL;
    }
    return wrap(original(fd), true);
}

/* Fills a context's table for a provider, which may call it again. */
struct verbs_context_ops;
EXPORT void verbs_set_ops(struct verbs_context *context, const struct verbs_context_ops *operations);
void verbs_set_ops(struct verbs_context *context, const struct verbs_context_ops *operations)
{
    void (*original)(struct verbs_context *, const struct verbs_context_ops *) = verbs_original("verbs_set_ops");
    if (!original)
        return;
    original(context, operations);
    wrap(&context->context, false);
}
