/*
 * Shared receive queues and XRC with libibverbs.
 *
 *   shared_queues [-d DEVICE] [-g GID-INDEX] [-m MTU] [CASE]
 *
 * End 1 receives, end 0 sends. The RC queue pairs of cases.h are unused.
 */
#define _GNU_SOURCE
#include "../cases.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>

#define FIRST_RECEIVE 100 /* its wr_id; that of a send is smaller */
#define CHUNK 1024 /* bytes of the buffer for each receive request */
#define NO_SRQN 0 /* for queue pairs that are not XRC */

static struct ibv_qp *create_qp_of_type(int side, enum ibv_qp_type type, struct ibv_srq *srq, struct ibv_xrcd *xrcd)
{
    struct ibv_qp_init_attr_ex init = {
        .send_cq = ends[side].cq,
        .recv_cq = ends[side].cq,
        .srq = srq,
        .cap = {.max_send_wr = QUEUE, .max_recv_wr = srq || xrcd ? 0 : 4, .max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = type,
        .comp_mask = xrcd ? IBV_QP_INIT_ATTR_XRCD : IBV_QP_INIT_ATTR_PD,
        .pd = ends[side].pd,
        .xrcd = xrcd,
    };
    struct ibv_qp *qp = ibv_create_qp_ex(ends[side].context, &init);
    NEED(qp, "ibv_create_qp_ex: %s", strerror(errno));
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_INIT,
        .port_num = 1,
        .qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC,
    };
    NEED(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0,
         "to INIT: %s", strerror(errno));
    return qp;
}

static void connect_qp(int side, struct ibv_qp *qp, struct ibv_qp *peer)
{
    struct endpoint end = ends[side];
    struct address address = address_of(&ends[!side]);
    end.qp = qp;
    address.qpn = peer->qp_num;
    connect_to(&end, &address, &options);
}

static void connect_both(struct ibv_qp *sender, struct ibv_qp *receiver)
{
    connect_qp(0, sender, receiver);
    connect_qp(1, receiver, sender);
}

static void destroy_qp(struct ibv_qp *qp)
{
    NEED(ibv_destroy_qp(qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
}

static struct ibv_srq *create_srq(uint32_t max_wr)
{
    struct ibv_srq_init_attr init = {.attr = {.max_wr = max_wr, .max_sge = 1}};
    struct ibv_srq *srq = ibv_create_srq(ends[1].pd, &init);
    NEED(srq, "ibv_create_srq: %s", strerror(errno));
    return srq;
}

static void destroy_srq(struct ibv_srq *srq)
{
    NEED(ibv_destroy_srq(srq) == 0, "ibv_destroy_srq: %s", strerror(errno));
}

/* The chunk of the buffer that receive request `id` uses. */
static uint8_t *chunk_of(uint64_t id)
{
    return ends[1].buffer + (id - FIRST_RECEIVE) * CHUNK;
}

static void post_shared(struct ibv_srq *srq, uint64_t id)
{
    struct ibv_sge sge = {(uintptr_t)chunk_of(id), CHUNK, ends[1].mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &sge, .num_sge = 1}, *bad;
    const int error = ibv_post_srq_recv(srq, &wr, &bad);
    NEED(error == 0, "ibv_post_srq_recv: %s", strerror(error));
}

/*
 * Posts a request with `length` bytes of `value`, and with `value` as immediate data. `srqn`: the peer's SRQ, for XRC.
 * FETCH_AND_ADD adds 1.
 */
static void send_on(struct ibv_qp *qp, uint64_t id, enum ibv_wr_opcode opcode, uint8_t value, uint32_t length,
                    uint32_t srqn)
{
    memset(ends[0].buffer, value, length);
    struct ibv_sge sge = {(uintptr_t)ends[0].buffer, length, ends[0].mr->lkey};
    struct ibv_send_wr wr = {.wr_id = id,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .opcode = opcode,
                             .imm_data = htobe32(value),
                             .send_flags = IBV_SEND_SIGNALED};
    if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
        wr.wr.atomic.remote_addr = (uintptr_t)ends[1].buffer;
        wr.wr.atomic.rkey = ends[1].mr->rkey;
        wr.wr.atomic.compare_add = 1;
    } else {
        wr.wr.rdma.remote_addr = (uintptr_t)ends[1].buffer;
        wr.wr.rdma.rkey = ends[1].mr->rkey;
    }
    wr.qp_type.xrc.remote_srqn = srqn;
    struct ibv_send_wr *bad;
    const int error = ibv_post_send(qp, &wr, &bad);
    NEED(error == 0, "ibv_post_send: %s", strerror(error));
}

static void send_byte(struct ibv_qp *qp, uint64_t id, uint8_t value, uint32_t srqn)
{
    send_on(qp, id, IBV_WR_SEND, value, 1, srqn);
}

/* Waits for the next completion of end 1, which must be receive `id` of queue pair `qp`. */
static void expect_received(uint64_t id, uint8_t value, const struct ibv_qp *qp)
{
    const struct ibv_wc wc = wait_for_completion(1, id, IBV_WC_SUCCESS);
    check("queue pair of the completion", (int)wc.qp_num, (int)qp->qp_num);
    check("byte received", *chunk_of(id), value);
}

/* Waits up to 10 seconds for the next asynchronous event. */
static void expect_event(enum ibv_event_type type, const void *element)
{
    struct ibv_async_event event;
    struct pollfd async_fd = {.fd = context->async_fd, .events = POLLIN};
    NEED(poll(&async_fd, 1, 10000) == 1, "there is no event %d", type);
    NEED(ibv_get_async_event(context, &event) == 0, "ibv_get_async_event: %s", strerror(errno));
    check("event", event.event_type, type);
    check("element of the event", (const void *)event.element.srq == element, 1);
    ibv_ack_async_event(&event);
}

static void expect_no_event(void)
{
    struct pollfd async_fd = {.fd = context->async_fd, .events = POLLIN};
    check("events", poll(&async_fd, 1, 0), 0);
}

static struct ibv_srq_attr query_srq(struct ibv_srq *srq)
{
    struct ibv_srq_attr attr;
    NEED(ibv_query_srq(srq, &attr) == 0, "ibv_query_srq: %s", strerror(errno));
    return attr;
}

/* ---- shared receive queues ---- */

/* Two queue pairs take receives from one SRQ, in the order of the messages. */
static void order(void)
{
    struct ibv_srq *srq = create_srq(8);
    struct ibv_qp *sender[2], *receiver[2];
    for (int i = 0; i < 2; i++) {
        sender[i] = create_qp_of_type(0, IBV_QPT_RC, NULL, NULL);
        receiver[i] = create_qp_of_type(1, IBV_QPT_RC, srq, NULL);
        connect_both(sender[i], receiver[i]);
    }
    for (uint64_t id = 100; id < 104; id++)
        post_shared(srq, id);
    for (int i = 0; i < 4; i++) {
        send_byte(sender[i & 1], (uint64_t)i, (uint8_t)(10 + i), NO_SRQN);
        wait_for_completion(0, (uint64_t)i, IBV_WC_SUCCESS);
        expect_received(100 + (uint64_t)i, (uint8_t)(10 + i), receiver[i & 1]);
    }
    check("destroy of a queue in use", ibv_destroy_srq(srq), EBUSY);
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
    NEED(ibv_query_qp(receiver[0], &attr, IBV_QP_CAP, &init) == 0, "ibv_query_qp: %s", strerror(errno));
    check("max_recv_wr", (int)attr.cap.max_recv_wr, 0);
    /* RNR: the SRQ is empty. */
    send_byte(sender[0], 9, 1, NO_SRQN);
    wait_for_completion(0, 9, IBV_WC_RNR_RETRY_EXC_ERR);
    for (int i = 0; i < 2; i++) {
        destroy_qp(sender[i]);
        destroy_qp(receiver[i]);
    }
    destroy_srq(srq);
}

/* When fewer receives than the limit remain, the SRQ raises an event and clears the limit. */
static void limit(void)
{
    struct ibv_srq *srq = create_srq(8);
    struct ibv_qp *sender = create_qp_of_type(0, IBV_QPT_RC, NULL, NULL);
    struct ibv_qp *receiver = create_qp_of_type(1, IBV_QPT_RC, srq, NULL);
    connect_both(sender, receiver);
    for (uint64_t id = 100; id < 105; id++)
        post_shared(srq, id);
    struct ibv_srq_attr attr = {.srq_limit = 4};
    NEED(ibv_modify_srq(srq, &attr, IBV_SRQ_LIMIT) == 0, "ibv_modify_srq: %s", strerror(errno));
    check("limit", (int)query_srq(srq).srq_limit, 4);
    for (int i = 0; i < 4; i++) {
        send_byte(sender, (uint64_t)i, (uint8_t)i, NO_SRQN);
        wait_for_completion(0, (uint64_t)i, IBV_WC_SUCCESS);
        expect_received(100 + (uint64_t)i, (uint8_t)i, receiver);
        if (i == 0)
            expect_no_event();
        if (i == 1) /* 3 of 5 receives remain */
            expect_event(IBV_EVENT_SRQ_LIMIT_REACHED, srq);
    }
    expect_no_event();
    check("limit afterwards", (int)query_srq(srq).srq_limit, 0);
    attr.srq_limit = 1000;
    check("a limit beyond the queue", ibv_modify_srq(srq, &attr, IBV_SRQ_LIMIT), EINVAL);
    destroy_qp(sender);
    destroy_qp(receiver);
    destroy_srq(srq);
}

/* A resized SRQ keeps its posted receives, in order. */
static void resize(void)
{
    struct ibv_srq *srq = create_srq(4);
    struct ibv_qp *sender = create_qp_of_type(0, IBV_QPT_RC, NULL, NULL);
    struct ibv_qp *receiver = create_qp_of_type(1, IBV_QPT_RC, srq, NULL);
    connect_both(sender, receiver);
    for (uint64_t id = 100; id < 104; id++)
        post_shared(srq, id);
    send_byte(sender, 0, 50, NO_SRQN);
    wait_for_completion(0, 0, IBV_WC_SUCCESS);
    expect_received(100, 50, receiver);
    struct ibv_srq_attr attr = {.max_wr = 40};
    NEED(ibv_modify_srq(srq, &attr, IBV_SRQ_MAX_WR) == 0, "ibv_modify_srq: %s", strerror(errno));
    check("max_wr", query_srq(srq).max_wr >= 40, 1);
    for (uint64_t id = 104; id < 140; id++)
        post_shared(srq, id);
    attr.max_wr = 10;
    check("a queue too small for its posted requests", ibv_modify_srq(srq, &attr, IBV_SRQ_MAX_WR), EINVAL);
    for (uint64_t i = 1; i < 40; i++) {
        send_byte(sender, i, (uint8_t)(50 + i), NO_SRQN);
        wait_for_completion(0, i, IBV_WC_SUCCESS);
        expect_received(100 + i, (uint8_t)(50 + i), receiver);
    }
    destroy_qp(sender);
    destroy_qp(receiver);
    destroy_srq(srq);
}

/* A queue pair in the error state takes no more receives from the SRQ, and raises an event after its last one. */
static void last_request(void)
{
    struct ibv_srq *srq = create_srq(4);
    struct ibv_qp *sender = create_qp_of_type(0, IBV_QPT_RC, NULL, NULL);
    struct ibv_qp *receiver = create_qp_of_type(1, IBV_QPT_RC, srq, NULL);
    connect_both(sender, receiver);
    post_shared(srq, 100);
    post_shared(srq, 101);
    send_byte(sender, 0, 7, NO_SRQN);
    wait_for_completion(0, 0, IBV_WC_SUCCESS);
    expect_received(100, 7, receiver);
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    NEED(ibv_modify_qp(receiver, &attr, IBV_QP_STATE) == 0, "to ERR: %s", strerror(errno));
    expect_event(IBV_EVENT_QP_LAST_WQE_REACHED, receiver);
    destroy_qp(receiver);
    destroy_qp(sender);
    /* Another queue pair takes the remaining receive. */
    sender = create_qp_of_type(0, IBV_QPT_RC, NULL, NULL);
    receiver = create_qp_of_type(1, IBV_QPT_RC, srq, NULL);
    connect_both(sender, receiver);
    send_byte(sender, 1, 8, NO_SRQN);
    wait_for_completion(0, 1, IBV_WC_SUCCESS);
    expect_received(101, 8, receiver);
    destroy_qp(receiver);
    destroy_qp(sender);
    destroy_srq(srq);
}

/* ---- XRC ---- */

static struct ibv_xrcd *open_domain(int fd, int flags)
{
    struct ibv_xrcd_init_attr init = {
        .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = fd, .oflags = flags};
    return ibv_open_xrcd(context, &init);
}

static void close_domain(struct ibv_xrcd *xrcd)
{
    NEED(ibv_close_xrcd(xrcd) == 0, "ibv_close_xrcd: %s", strerror(errno));
}

static struct ibv_srq *create_xrc_srq(struct ibv_xrcd *xrcd, uint32_t *srqn)
{
    struct ibv_srq_init_attr_ex init = {
        .attr = {.max_wr = 8, .max_sge = 1},
        .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ,
        .srq_type = IBV_SRQT_XRC,
        .pd = ends[1].pd,
        .xrcd = xrcd,
        .cq = ends[1].cq,
    };
    struct ibv_srq *srq = ibv_create_srq_ex(context, &init);
    NEED(srq, "ibv_create_srq_ex: %s", strerror(errno));
    NEED(ibv_get_srq_num(srq, srqn) == 0, "ibv_get_srq_num");
    return srq;
}

/* One initiator sends to two SRQs of the target's domain. */
static void xrc_operations(void)
{
    struct ibv_xrcd *xrcd = open_domain(-1, O_CREAT);
    NEED(xrcd, "ibv_open_xrcd: %s", strerror(errno));
    uint32_t srqn[2];
    struct ibv_srq *srq[2] = {create_xrc_srq(xrcd, &srqn[0]), create_xrc_srq(xrcd, &srqn[1])};
    struct ibv_qp *sender = create_qp_of_type(0, IBV_QPT_XRC_SEND, NULL, NULL);
    struct ibv_qp *receiver = create_qp_of_type(1, IBV_QPT_XRC_RECV, NULL, xrcd);
    connect_both(sender, receiver);
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
    NEED(ibv_query_qp(receiver, &attr, IBV_QP_STATE, &init) == 0, "ibv_query_qp: %s", strerror(errno));
    check("state of the target", attr.qp_state, IBV_QPS_RTS);
    check("close of a domain in use", ibv_close_xrcd(xrcd), EBUSY);
    for (uint64_t id = 100; id < 108; id++)
        post_shared(srq[id % 2], id); /* even IDs to srq[0], odd ones to srq[1] */
    send_byte(sender, 1, 31, srqn[1]);
    wait_for_completion(0, 1, IBV_WC_SUCCESS);
    expect_received(101, 31, receiver);
    send_byte(sender, 2, 32, srqn[0]);
    wait_for_completion(0, 2, IBV_WC_SUCCESS);
    expect_received(100, 32, receiver);
    send_on(sender, 3, IBV_WR_SEND_WITH_IMM, 33, CHUNK, srqn[1]);
    wait_for_completion(0, 3, IBV_WC_SUCCESS);
    struct ibv_wc wc = wait_for_completion(1, 103, IBV_WC_SUCCESS);
    check("immediate", (int)be32toh(wc.imm_data), 33);
    check("bytes", (int)wc.byte_len, CHUNK);
    send_on(sender, 4, IBV_WR_RDMA_WRITE, 34, 20001, srqn[0]);
    wait_for_completion(0, 4, IBV_WC_SUCCESS);
    check("first byte written", ends[1].buffer[0], 34);
    check("last byte written", ends[1].buffer[20000], 34);
    send_on(sender, 5, IBV_WR_RDMA_WRITE_WITH_IMM, 35, 5000, srqn[1]);
    wait_for_completion(0, 5, IBV_WC_SUCCESS);
    wc = wait_for_completion(1, 105, IBV_WC_SUCCESS);
    check("opcode", wc.opcode, IBV_WC_RECV_RDMA_WITH_IMM);
    check("byte written", ends[1].buffer[4999], 35);
    memset(ends[1].buffer, 36, LENGTH);
    send_on(sender, 6, IBV_WR_RDMA_READ, 0, 10000, srqn[1]);
    wait_for_completion(0, 6, IBV_WC_SUCCESS);
    check("last byte read", ends[0].buffer[9999], 36);
    memset(ends[1].buffer, 0, 8);
    send_on(sender, 7, IBV_WR_ATOMIC_FETCH_AND_ADD, 0, 8, srqn[0]);
    wait_for_completion(0, 7, IBV_WC_SUCCESS);
    check("counter", ends[1].buffer[0], 1);
    /* No SRQ has this number: the responder answers with NAK invalid request. */
    send_byte(sender, 8, 1, 0x123456);
    wait_for_completion(0, 8, IBV_WC_REM_INV_REQ_ERR);
    expect_event(IBV_EVENT_QP_LAST_WQE_REACHED, receiver);
    expect_event(IBV_EVENT_QP_REQ_ERR, receiver);
    destroy_qp(sender);
    destroy_qp(receiver);
    destroy_srq(srq[0]);
    destroy_srq(srq[1]);
    close_domain(xrcd);
}

/* A list of XRC requests is posted up to the first refused one, and each SEND goes to its own SRQ. */
static void xrc_lists(void)
{
    enum { REQUESTS = 40, FIRST_SEND = 3, SECOND_SEND = 36, REFUSED = 37, TARGET = 32768 };
    struct ibv_xrcd *xrcd = open_domain(-1, O_CREAT);
    NEED(xrcd, "ibv_open_xrcd: %s", strerror(errno));
    uint32_t srqn[2];
    struct ibv_srq *srq[2] = {create_xrc_srq(xrcd, &srqn[0]), create_xrc_srq(xrcd, &srqn[1])};
    struct ibv_qp *sender = create_qp_of_type(0, IBV_QPT_XRC_SEND, NULL, NULL);
    struct ibv_qp *receiver = create_qp_of_type(1, IBV_QPT_XRC_RECV, NULL, xrcd);
    connect_both(sender, receiver);
    post_shared(srq[0], 100);
    post_shared(srq[1], 101);
    struct ibv_sge sges[REQUESTS][2];
    struct ibv_send_wr list[REQUESTS], *bad = NULL;
    for (int i = 0; i < REQUESTS; i++) {
        const bool is_send = i == FIRST_SEND || i == SECOND_SEND;
        ends[0].buffer[i] = (uint8_t)(100 + i);
        sges[i][0] = sges[i][1] = (struct ibv_sge){(uintptr_t)&ends[0].buffer[i], 1, ends[0].mr->lkey};
        list[i] = (struct ibv_send_wr){.wr_id = (uint64_t)i,
                                       .next = i < REQUESTS - 1 ? &list[i + 1] : NULL,
                                       .sg_list = sges[i],
                                       .num_sge = i == REFUSED ? 2 : 1, /* the queue pair's limit is 1 */
                                       .opcode = is_send ? IBV_WR_SEND : IBV_WR_RDMA_WRITE,
                                       .send_flags = IBV_SEND_SIGNALED};
        list[i].wr.rdma.remote_addr = (uintptr_t)ends[1].buffer + TARGET + (unsigned)i;
        list[i].wr.rdma.rkey = ends[1].mr->rkey;
        list[i].qp_type.xrc.remote_srqn = srqn[i == SECOND_SEND];
    }
    check("a list with a refused request", ibv_post_send(sender, list, &bad) != 0, 1);
    check("bad_wr is the refused request", bad == &list[REFUSED], 1);
    for (int i = 0; i < REFUSED; i++) {
        wait_for_completion(0, (uint64_t)i, IBV_WC_SUCCESS);
        const bool is_send = i == FIRST_SEND || i == SECOND_SEND;
        check("byte written", ends[1].buffer[TARGET + i], is_send ? 0 : 100 + i);
    }
    expect_received(100, 100 + FIRST_SEND, receiver);
    expect_received(101, 100 + SECOND_SEND, receiver);
    check("an unposted request's byte", ends[1].buffer[TARGET + REQUESTS - 1], 0);
    destroy_qp(sender);
    destroy_qp(receiver);
    destroy_srq(srq[0]);
    destroy_srq(srq[1]);
    close_domain(xrcd);
}

/* Only an XRC SRQ has a number. */
static void srq_without_number(void)
{
    struct ibv_srq *srq = create_srq(1);
    uint32_t number = 7;
    check("number of a basic SRQ", ibv_get_srq_num(srq, &number), EOPNOTSUPP);
    check("the number is unchanged", (int)number, 7);
    destroy_srq(srq);
}

/* The flags of ibv_open_xrcd. */
static void domain_flags(void)
{
    char path[] = "/tmp/shared_queues-XXXXXX";
    const int fd = mkstemp(path);
    NEED(fd >= 0, "mkstemp: %s", strerror(errno));
    NEED(!open_domain(fd, 0), "a domain that does not exist");
    check("errno of a domain that does not exist", errno, EAGAIN);
    NEED(!open_domain(999, O_CREAT), "a domain with a bad descriptor");
    check("errno of a bad descriptor", errno, EBADF);
    struct ibv_xrcd *first = open_domain(fd, O_CREAT | O_EXCL), *second = open_domain(fd, 0);
    NEED(first && second, "ibv_open_xrcd: %s", strerror(errno));
    NEED(!open_domain(fd, O_CREAT | O_EXCL), "a domain created twice");
    check("errno of a domain created twice", errno, EINVAL);
    close_domain(second);
    close_domain(first);
    NEED(!open_domain(fd, 0), "a domain that every process has closed");
    close(fd);
    unlink(path);
}

/* The attributes of ibv_open_qp. */
static void open_target(void)
{
    struct ibv_xrcd *xrcd = open_domain(-1, O_CREAT);
    NEED(xrcd, "ibv_open_xrcd: %s", strerror(errno));
    struct ibv_qp *qp = create_qp_of_type(1, IBV_QPT_XRC_RECV, NULL, xrcd);
    check("the target has the domain and queues of its attributes",
          qp->pd == ends[1].pd && qp->send_cq == ends[1].cq && qp->recv_cq == ends[1].cq, true);
    struct ibv_qp_open_attr open = {.comp_mask = IBV_QP_OPEN_ATTR_XRCD | IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_TYPE,
                                    .qp_num = qp->qp_num,
                                    .xrcd = xrcd,
                                    .qp_type = IBV_QPT_XRC_RECV};
    struct ibv_qp *opened_qp = ibv_open_qp(context, &open);
    NEED(opened_qp, "ibv_open_qp: %s", strerror(errno));
    open.qp_num++;
    NEED(!ibv_open_qp(context, &open), "a target that does not exist");
    check("errno of a target that does not exist", errno, EINVAL);
    open.qp_num--;
    open.comp_mask |= IBV_QP_OPEN_ATTR_RESERVED;
    NEED(!ibv_open_qp(context, &open), "an unknown attribute");
    check("errno of an unknown attribute", errno, EOPNOTSUPP);
    open.comp_mask = IBV_QP_OPEN_ATTR_RESERVED;
    NEED(!ibv_open_qp(context, &open), "an unknown attribute alone");
    check("errno of an unknown attribute alone", errno, EOPNOTSUPP);
    open.comp_mask = IBV_QP_OPEN_ATTR_XRCD | IBV_QP_OPEN_ATTR_TYPE;
    NEED(!ibv_open_qp(context, &open), "a target without a number");
    check("errno of a target without a number", errno, EINVAL);
    destroy_qp(qp);
    destroy_qp(opened_qp);
    close_domain(xrcd);
}

/* A message between the processes; `value`: a queue pair number, a byte, or whether all checks pass. */
struct numbers {
    uint32_t srqn, value;
};

static void send_numbers(int fd, struct numbers numbers)
{
    NEED(write(fd, &numbers, sizeof numbers) == sizeof numbers, "write: %s", strerror(errno));
}

static struct numbers receive_numbers(int fd)
{
    struct numbers numbers;
    NEED(read(fd, &numbers, sizeof numbers) == sizeof numbers, "the other process has ended");
    return numbers;
}

/* Creates an SRQ in the domain of the file, and opens the first process's target. `in`, `out`: pipes. */
static int other_process(int file, int in, int out)
{
    const uint32_t qpn = receive_numbers(in).value;
    context = open_named(options.device);
    create_endpoint(&ends[1], context, &options, LENGTH, 5);
    struct ibv_xrcd *xrcd = open_domain(file, 0);
    NEED(xrcd, "the other process: ibv_open_xrcd: %s", strerror(errno));
    uint32_t srqn;
    struct ibv_srq *srq = create_xrc_srq(xrcd, &srqn);
    struct ibv_qp_open_attr open = {.comp_mask = IBV_QP_OPEN_ATTR_XRCD | IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_TYPE,
                                    .qp_num = qpn,
                                    .xrcd = xrcd,
                                    .qp_type = IBV_QPT_XRC_RECV};
    struct ibv_qp *qp = ibv_open_qp(context, &open);
    NEED(qp, "the other process: ibv_open_qp: %s", strerror(errno));
    post_shared(srq, 100);
    post_shared(srq, 101);
    send_numbers(out, (struct numbers){.srqn = srqn});
    expect_received(100, 61, qp);
    send_numbers(out, (struct numbers){.value = ends[1].buffer[0]});
    expect_received(101, 62, qp);
    destroy_qp(qp);
    destroy_srq(srq);
    close_domain(xrcd);
    send_numbers(out, (struct numbers){.value = passes});
    return 0;
}

/* Two processes share an XRC target, which remains when its creator has destroyed it. */
static void two_processes(void)
{
    char path[] = "/tmp/shared_queues-XXXXXX", fd_path[] = "/proc/self/fd/0000000000";
    const int file = mkstemp(path);
    int to_child[2], from_child[2];
    NEED(file >= 0 && pipe(to_child) == 0 && pipe(from_child) == 0, "pipe: %s", strerror(errno));
    const pid_t child = fork();
    NEED(child >= 0, "fork: %s", strerror(errno));
    /* The child opens the file again: a domain belongs to the inode, not to a descriptor. */
    if (child == 0) {
        close(to_child[1]);
        close(from_child[0]);
        snprintf(fd_path, sizeof fd_path, "/proc/self/fd/%d", file);
        const int reopened = open(fd_path, O_RDONLY);
        _exit(other_process(reopened, to_child[0], from_child[1]));
    }
    close(to_child[0]);
    close(from_child[1]);
    struct ibv_xrcd *xrcd = open_domain(file, O_CREAT);
    NEED(xrcd, "ibv_open_xrcd: %s", strerror(errno));
    struct ibv_qp *sender = create_qp_of_type(0, IBV_QPT_XRC_SEND, NULL, NULL);
    struct ibv_qp *receiver = create_qp_of_type(1, IBV_QPT_XRC_RECV, NULL, xrcd);
    connect_both(sender, receiver);
    send_numbers(to_child[1], (struct numbers){.value = receiver->qp_num});
    const uint32_t srqn = receive_numbers(from_child[0]).srqn;
    send_byte(sender, 1, 61, srqn);
    wait_for_completion(0, 1, IBV_WC_SUCCESS);
    check("byte that the other process got", (int)receive_numbers(from_child[0]).value, 61);
    destroy_qp(receiver);
    close_domain(xrcd);
    send_byte(sender, 2, 62, srqn);
    wait_for_completion(0, 2, IBV_WC_SUCCESS);
    check("whether the checks of the other process pass", (int)receive_numbers(from_child[0]).value, 1);
    int status;
    NEED(waitpid(child, &status, 0) == child, "waitpid: %s", strerror(errno));
    check("status of the other process", status, 0);
    /* The other process was the last user of the target, and has destroyed it. */
    send_byte(sender, 3, 63, srqn);
    wait_for_completion(0, 3, IBV_WC_RETRY_EXC_ERR);
    destroy_qp(sender);
    close(file);
    unlink(path);
}

static const struct test_case cases[] = {
    {"order", order},
    {"limit", limit},
    {"resize", resize},
    {"last_request", last_request},
    {"xrc_operations", xrc_operations},
    {"xrc_lists", xrc_lists},
    {"srq_without_number", srq_without_number},
    {"domain_flags", domain_flags},
    {"open_target", open_target},
    {"two_processes", two_processes},
};

int main(int argc, char **argv)
{
    return run_cases(cases, sizeof cases / sizeof cases[0], argc, argv);
}
