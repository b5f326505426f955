/*
 * Branches on received bytes in memory that the program has not written: valgrind must report only the case "beyond".
 *
 *   initialised recv        a SEND
 *   initialised extended    two SENDs, polled with ibv_start_poll and ibv_next_poll
 *   initialised read        an RDMA READ
 *   initialised write       an RDMA WRITE, which completes at the requester only
 *   initialised removed     as recv, but prints "ready" before it polls, and waits for a line of input, which comes
 *                           after the removal of the device; the poll that notices the removal finds the completion
 *   initialised sent        as recv; the second half of what is sent was never written
 *   initialised beyond      as recv; branches on one byte more than was received
 */
#define _GNU_SOURCE
#include <dlfcn.h>

#include "../endpoint.h"

#define LENGTH 5000

static void poll_one(struct endpoint *end)
{
    struct ibv_wc wc;
    while (next_completion(end, &wc) == 0)
        ;
    NEED(wc.status == IBV_WC_SUCCESS, "a completion says: %s", ibv_wc_status_str(wc.status));
}

static void poll_two_by_start_poll(struct ibv_cq_ex *cq)
{
    struct ibv_poll_cq_attr attr = {0};
    int found = 0;
    while (found < 2) {
        if (ibv_start_poll(cq, &attr) != 0)
            continue;
        do
            found++;
        while (found < 2 && ibv_next_poll(cq) == 0);
        ibv_end_poll(cq);
    }
}

static int provider_polls;

/* A provider's poll_cq. The first poll finds nothing, the second finds a completion. */
static int poll_second(UNUSED struct ibv_cq *cq, UNUSED int entries, struct ibv_wc *wc)
{
    *wc = (struct ibv_wc){.status = IBV_WC_SUCCESS};
    return ++provider_polls == 2 ? 1 : 0;
}

static void wait_for_event(struct endpoint *end)
{
    struct ibv_cq *cq;
    void *cq_context;
    NEED(ibv_get_cq_event(end->channel, &cq, &cq_context) == 0, "ibv_get_cq_event: %s", strerror(errno));
    ibv_ack_cq_events(cq, 1);
}

/*
 * Waits for the removal of the device. Then polls until the shim notices the removal: it polls the provider again in
 * the same ibv_poll_cq.
 */
static void poll_after_removal(struct endpoint *end)
{
    printf("ready\n");
    NEED(getchar() != EOF, "no line says that the device was removed");
    void (*set_ops)(struct verbs_context *, void *const *) = dlsym(RTLD_DEFAULT, "verbs_set_ops");
    static void *const no_operations[256]; /* more than struct verbs_context_ops has */
    NEED(set_ops, "no verbs_set_ops");
    end->context->ops.poll_cq = poll_second;
    set_ops(verbs_get_ctx(end->context), no_operations); /* the shim wraps poll_second */
    struct ibv_wc wc;
    do
        provider_polls = 0;
    while (ibv_poll_cq(end->cq, 1, &wc) == 0);
    NEED(provider_polls == 2, "%d polls of the provider", provider_polls);
}

static size_t count_zeros(const uint8_t *bytes, size_t length)
{
    size_t zeros = 0;
    for (size_t i = 0; i < length; i++)
        if (bytes[i] == 0)
            zeros++;
    return zeros;
}

int main(int count, char **arguments)
{
    const char *kind = count == 2 ? arguments[1] : "";
    const bool is_extended = strcmp(kind, "extended") == 0, is_beyond = strcmp(kind, "beyond") == 0;
    const bool is_removed = strcmp(kind, "removed") == 0;
    const bool is_sent = strcmp(kind, "sent") == 0;
    const bool receives = is_extended || is_beyond || is_removed || is_sent || strcmp(kind, "recv") == 0;
    const bool reads = strcmp(kind, "read") == 0, writes = strcmp(kind, "write") == 0;
    NEED(receives || reads || writes, "usage: %s recv|extended|read|write|removed|sent|beyond", arguments[0]);
    struct options options = default_options;
    options.events = receives;
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct ibv_context *context = open_named(NULL);
    struct endpoint from, to;
    create_endpoint(&from, context, &options, 2 * LENGTH, 1);
    create_endpoint(&to, context, &options, 2 * LENGTH, 2);
    struct ibv_cq_ex *cq = NULL;
    if (is_extended) {
        struct ibv_cq_init_attr_ex init = {.cqe = 16, .wc_flags = IBV_WC_EX_WITH_BYTE_LEN};
        cq = ibv_create_cq_ex(context, &init);
        NEED(cq, "ibv_create_cq_ex: %s", strerror(errno));
        NEED(ibv_destroy_qp(to.qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
        to.cq = ibv_cq_ex_to_cq(cq);
        create_qp(&to);
    }
    const struct address ends[] = {address_of(&from), address_of(&to)};
    connect_to(&from, &ends[1], &options);
    connect_to(&to, &ends[0], &options);

    uint8_t *unwritten = malloc(2 * LENGTH);
    struct ibv_mr *mr =
        ibv_reg_mr(to.pd, unwritten, 2 * LENGTH, IBV_ACCESS_LOCAL_WRITE | (writes ? IBV_ACCESS_REMOTE_WRITE : 0));
    NEED(unwritten && mr, "ibv_reg_mr: %s", strerror(errno));
    struct ibv_sge target = {.addr = (uintptr_t)unwritten, .length = 2 * LENGTH, .lkey = mr->lkey};
    struct ibv_sge source = {.addr = (uintptr_t)from.buffer, .length = LENGTH, .lkey = from.mr->lkey};
    if (is_sent) {
        uint8_t *const half = malloc(LENGTH);
        struct ibv_mr *const of_half = ibv_reg_mr(from.pd, half, LENGTH, 0);
        NEED(half && of_half, "ibv_reg_mr: %s", strerror(errno));
        memset(half, 0, LENGTH / 2);
        source = (struct ibv_sge){.addr = (uintptr_t)half, .length = LENGTH, .lkey = of_half->lkey};
    }
    struct ibv_recv_wr two_receives[2] = {{.next = &two_receives[1], .sg_list = &target, .num_sge = 1},
                                          {.sg_list = &target, .num_sge = 1}};
    struct ibv_recv_wr *bad_receive;
    struct ibv_send_wr send = {.sg_list = &source, .num_sge = 1, .opcode = IBV_WR_SEND};
    struct ibv_send_wr *bad_send;
    if (receives) {
        NEED(ibv_post_recv(to.qp, two_receives, &bad_receive) == 0, "ibv_post_recv: %s", strerror(errno));
    } else if (reads) {
        target.length = LENGTH;
        send.sg_list = &target;
        send.opcode = IBV_WR_RDMA_READ;
        send.wr.rdma.remote_addr = (uintptr_t)from.buffer;
        send.wr.rdma.rkey = from.mr->rkey;
    } else {
        send.opcode = IBV_WR_RDMA_WRITE;
        send.wr.rdma.remote_addr = (uintptr_t)unwritten;
        send.wr.rdma.rkey = mr->rkey;
    }
    NEED(!receives || ibv_req_notify_cq(from.cq, 0) == 0, "ibv_req_notify_cq: %s", strerror(errno));
    struct endpoint *const sender = reads ? &to : &from;
    const int posts = is_extended ? 2 : 1;
    for (int i = 1; i <= posts; i++) {
        send.send_flags = i == posts ? IBV_SEND_SIGNALED : 0;
        NEED(ibv_post_send(sender->qp, &send, &bad_send) == 0, "ibv_post_send: %s", strerror(errno));
    }
    /* A poll of the SENDs' completion would mark the received bytes before the receiver's poll. */
    if (receives)
        wait_for_event(&from);
    else
        poll_one(sender);
    if (is_removed)
        poll_after_removal(&to);
    else if (is_extended)
        poll_two_by_start_poll(cq);
    else if (receives)
        poll_one(&to);
    NEED(is_sent || count_zeros(unwritten, is_beyond ? LENGTH + 1 : LENGTH) >= LENGTH, "the received bytes are wrong");
    if (receives && !is_removed)
        poll_one(&from);
    printf("arrived\n");
    return 0;
}
