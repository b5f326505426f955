/*
 * Mistakes that work with most hardware most of the time, for `--torment`, and correct counterparts (-right). Each line
 * names the wrong assumption:
 *
 *   torment_cases last-byte | last-byte-right       a WRITE is complete when its last byte has arrived
 *   torment_cases order | order-right               a SEND completes before the peer's reply arrives
 *   torment_cases event | event-right               each completion event comes with a completion
 *   torment_cases extra | extra-right               as event, while nothing is sent
 *   torment_cases depth | depth-right               a queue holds more requests than it was created for
 *   torment_cases unsignaled | unsignaled-right     slots of unsignaled sends are free once the peer has answered
 *   torment_cases fields | fields-right             the opcode of a completion in error tells its queue
 *   torment_cases numbers | numbers-right           of two devices, qp_num tells whose completion it is
 *   torment_cases reuse | reuse-right               a completion with qp_num of a queue pair is its own
 *   torment_cases keys | keys-right                 a peer may be told the lkey of a region
 *   torment_cases relaxed | relaxed-right           the later of two WRITEs to a region with relaxed ordering stays
 *   torment_cases adapter | adapter-right           every device has 16 elements in a request
 *   torment_cases patience | patience-right         a message arrives at once when its receive has been posted
 *   torment_cases retries | retries-right           nothing is sent twice, so retry_cnt can be 0
 *   torment_cases entries | entries-right           a CQ of 5 entries takes 6 completions
 *   torment_cases notice | notice-right             an event comes within 5 ms after its completion
 *   torment_cases announced | announced-right       a WRITE is there when a SEND of another queue pair announces it
 *   torment_cases abreast | abreast-right           completions of two devices come in the order of their requests
 *
 *   torment_cases fenced-right                      a fenced SEND of what an atomic returns
 *
 * If the assumption fails, the program prints a message and exits with status 1.
 */
#include "../../../docs/findings/pair.h"
#include <poll.h>
#include <pthread.h>
#include <time.h>

#define ROUNDS 4

static struct end one, other;

static struct ibv_sge first_bytes(const struct end *end, uint32_t length)
{
    return (struct ibv_sge){.addr = address_of(end), .length = length, .lkey = end->mr->lkey};
}

static struct ibv_wc next_completion(struct end *end)
{
    struct ibv_wc wc;
    int found;
    while ((found = ibv_poll_cq(end->cq, 1, &wc)) == 0)
        ;
    check(found < 0 || wc.status != IBV_WC_SUCCESS ? EIO : 0, "ibv_poll_cq");
    return wc;
}

/* The receiver polls the last byte in its memory; if `is_right`, the CQ for the immediate. */
static int last_byte(int is_right)
{
    for (int round = 1; round <= ROUNDS; round++) {
        memset(one.buffer, round, SIZE);
        if (is_right)
            post_receive(&other, first_bytes(&other, 0));
        post(&one, is_right ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other),
             other.mr->rkey);
        if (is_right)
            next_completion(&other);
        else
            while (((volatile char *)other.buffer)[SIZE - 1] != round)
                ;
        for (int i = 0; i < SIZE; i++)
            if (((volatile char *)other.buffer)[i] != round) {
                fprintf(stderr, "round %d: the last byte has arrived, byte %d has not\n", round, i);
                return 1;
            }
        next_completion(&one);
    }
    return 0;
}

/* Polls the completions of a SEND and of the peer's reply from one CQ; `is_right` accepts both orders. */
static int order(int is_right)
{
    for (int round = 1; round <= ROUNDS; round++) {
        post_receive(&one, first_bytes(&one, 64));
        post_receive(&other, first_bytes(&other, 64));
        post(&one, IBV_WR_SEND, first_bytes(&one, 64), 0, 0);
        next_completion(&other);
        post(&other, IBV_WR_SEND, first_bytes(&other, 64), 0, 0);
        const enum ibv_wc_opcode first_opcode = next_completion(&one).opcode;
        next_completion(&one);
        next_completion(&other);
        if (!is_right && first_opcode != IBV_WC_SEND) {
            fprintf(stderr, "round %d: the reply arrived before the completion of the SEND\n", round);
            return 1;
        }
    }
    return 0;
}

/* Waits for each message with an event; if `is_right`, waits again after an event without a completion. */
static int event(int is_right)
{
    struct ibv_comp_channel *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    struct ibv_cq *cq = need(ibv_create_cq(context, 16, NULL, channel, 0), "ibv_create_cq");
    struct ibv_qp_init_attr init = small_qp();
    check(ibv_destroy_qp(other.qp), "ibv_destroy_qp");
    init.send_cq = other.cq;
    init.recv_cq = cq;
    other.qp = need(ibv_create_qp(other.pd, &init), "ibv_create_qp");
    to_init(&other);
    connect_ends(&one, &other);
    int events = 0, status = 0;
    check(ibv_req_notify_cq(cq, 0), "ibv_req_notify_cq");
    for (int round = 1; round <= ROUNDS && status == 0; round++) {
        post_receive(&other, first_bytes(&other, 64));
        post(&one, IBV_WR_SEND, first_bytes(&one, 64), 0, 0);
        struct ibv_wc wc;
        int found = 0;
        while (found == 0) {
            struct ibv_cq *event_cq;
            void *cq_context;
            check(ibv_get_cq_event(channel, &event_cq, &cq_context), "ibv_get_cq_event");
            events++;
            check(ibv_req_notify_cq(cq, 0), "ibv_req_notify_cq");
            found = ibv_poll_cq(cq, 1, &wc);
            if (found == 0 && !is_right) {
                fprintf(stderr, "round %d: the event has no completion\n", round);
                status = 1;
                break;
            }
        }
        next_completion(&one);
    }
    ibv_ack_cq_events(cq, events);
    check(ibv_destroy_qp(other.qp), "ibv_destroy_qp");
    other.qp = NULL;
    check(ibv_destroy_cq(cq), "ibv_destroy_cq");
    check(ibv_destroy_comp_channel(channel), "ibv_destroy_comp_channel");
    return status;
}

static void *send_slowly(void *unused)
{
    for (int round = 1; round <= ROUNDS; round++) {
        usleep(30000);
        post(&one, IBV_WR_SEND, first_bytes(&one, 64), 0, 0);
        next_completion(&one);
    }
    return unused;
}

/* As `event`, with messages that another thread sends every 30 ms. */
static int extra(int is_right)
{
    struct ibv_comp_channel *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    replace_cq(&other, need(ibv_create_cq(context, 16, NULL, channel, 0), "ibv_create_cq"));
    connect_ends(&one, &other);
    for (int round = 1; round <= ROUNDS; round++)
        post_receive(&other, first_bytes(&other, 64));
    check(ibv_req_notify_cq(other.cq, 0), "ibv_req_notify_cq");
    pthread_t sender;
    check(pthread_create(&sender, NULL, send_slowly, NULL), "pthread_create");
    int status = 0;
    for (int received = 0; received < ROUNDS && status == 0;) {
        struct ibv_cq *cq;
        void *cq_context;
        struct ibv_wc wc;
        check(ibv_get_cq_event(channel, &cq, &cq_context), "ibv_get_cq_event");
        ibv_ack_cq_events(cq, 1);
        check(ibv_req_notify_cq(cq, 0), "ibv_req_notify_cq");
        int found = 0;
        while (ibv_poll_cq(cq, 1, &wc) == 1)
            found++;
        received += found;
        if (found == 0 && !is_right) {
            fprintf(stderr, "an event after %d messages has no completion\n", received);
            status = 1;
        }
    }
    pthread_join(sender, NULL);
    return status;
}

/* One WRITE more than the queue was created for; if `is_right`, one completes first. */
static int depth(int is_right)
{
    const int requested_depth = small_qp().cap.max_send_wr;
    for (int round = 1; round <= ROUNDS; round++) {
        int completed = 0;
        for (int i = 0; i <= requested_depth; i++) {
            if (is_right && i == requested_depth) {
                next_completion(&one);
                completed++;
            }
            post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
        }
        for (; completed < requested_depth + 1; completed++)
            next_completion(&one);
    }
    return 0;
}

/* `one` sends more requests than its queue holds, unsignaled; if `is_right`, signaled and polled. `other` replies. */
static int unsignaled(int is_right)
{
    struct ibv_qp_init_attr init = small_qp();
    init.sq_sig_all = is_right;
    init.send_cq = init.recv_cq = one.cq;
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    one.qp = need(ibv_create_qp(one.pd, &init), "ibv_create_qp");
    to_init(&one);
    connect_ends(&one, &other);
    for (int round = 1; round <= 5 * ROUNDS; round++) {
        post_receive(&one, first_bytes(&one, 64));
        post_receive(&other, first_bytes(&other, 64));
        post(&one, IBV_WR_SEND, first_bytes(&one, 64), 0, 0);
        next_completion(&other);
        post(&other, IBV_WR_SEND, first_bytes(&other, 64), 0, 0);
        next_completion(&other);
        next_completion(&one);
        if (is_right)
            next_completion(&one);
    }
    return 0;
}

/* Receives of `one` are flushed: counts completions of receives by opcode, or if `is_right`, by wr_id. */
static int fields(int is_right)
{
    const int receives = small_qp().cap.max_recv_wr;
    for (int i = 0; i < receives; i++) {
        struct ibv_sge sge = first_bytes(&one, 64);
        struct ibv_recv_wr *bad, wr = {.wr_id = 0x80 + i, .sg_list = &sge, .num_sge = 1};
        check(ibv_post_recv(one.qp, &wr, &bad), "ibv_post_recv");
    }
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    check(ibv_modify_qp(one.qp, &attr, IBV_QP_STATE), "ibv_modify_qp to ERR");
    int found = 0;
    for (int polled = 0; polled < receives;) {
        struct ibv_wc wc;
        if (ibv_poll_cq(one.cq, 1, &wc) != 1)
            continue;
        polled++;
        check(wc.status != IBV_WC_WR_FLUSH_ERR || wc.qp_num != one.qp->qp_num ? EIO : 0, "ibv_poll_cq");
        found += is_right ? wc.wr_id >= 0x80 : (wc.opcode & IBV_WC_RECV) != 0 && wc.byte_len == 0;
    }
    if (found == receives)
        return 0;
    fprintf(stderr, "%d of %d flushed completions are of receives\n", found, receives);
    return 1;
}

/* A fetch-and-add, and a fenced SEND of its result, in one list: the SEND waits for the result. */
static int fenced(int is_right)
{
    (void)is_right;
    int wrong = 0;
    uint64_t *const counter = (uint64_t *)other.buffer;
    *counter = 100;
    for (int round = 0; round < 20; round++) {
        struct ibv_sge sge = first_bytes(&one, 8), into = first_bytes(&other, 8);
        into.addr += SIZE / 2;
        post_receive(&other, into);
        struct ibv_send_wr *bad, send = {.wr_id = 5, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
        send.send_flags = IBV_SEND_FENCE;
        struct ibv_send_wr add = {.wr_id = 4, .next = &send, .sg_list = &sge, .num_sge = 1};
        add.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
        add.wr.atomic.remote_addr = address_of(&other);
        add.wr.atomic.compare_add = 1;
        add.wr.atomic.rkey = other.mr->rkey;
        check(ibv_post_send(one.qp, &add, &bad), "ibv_post_send");
        next_completion(&one);
        next_completion(&one);
        next_completion(&other);
        wrong += *(volatile uint64_t *)(other.buffer + SIZE / 2) != 100 + (uint64_t)round;
    }
    return wrong != 0;
}

/* A queue pair flushes its receives and is destroyed. The next one of the CQ has no receives. */
static int reuse(int is_right)
{
    struct ibv_wc wc;
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = init.recv_cq = one.cq;
    post_receive(&one, first_bytes(&one, 64));
    one.attr.qp_state = IBV_QPS_ERR;
    check(ibv_modify_qp(one.qp, &one.attr, IBV_QP_STATE), "to ERR");
    if (is_right)
        while (ibv_poll_cq(one.cq, 1, &wc) == 0)
            ;
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    create_queue_pair(&one, init);
    while (ibv_poll_cq(one.cq, 1, &wc) > 0)
        if (wc.qp_num == one.qp->qp_num) {
            fprintf(stderr, "the new queue pair has completed a receive that it does not have\n");
            return 1;
        }
    return 0;
}

/* Writes and reads memory of the peer by its lkey; if `is_right`, by its rkey. */
static int keys(int is_right)
{
    const uint32_t key = is_right ? other.mr->rkey : other.mr->lkey;
    const enum ibv_wr_opcode opcodes[] = {IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ};
    for (int i = 0; i < 2; i++) {
        struct ibv_wc wc;
        post(&one, opcodes[i], all_of(&one), address_of(&other), key);
        while (ibv_poll_cq(one.cq, 1, &wc) == 0)
            ;
        if (wc.status != IBV_WC_SUCCESS) {
            fprintf(stderr, "opcode %d: %s\n", opcodes[i], ibv_wc_status_str(wc.status));
            return 1;
        }
    }
    return 0;
}

/* Writes 1 and then 2 to the same bytes; if `is_right`, 2 after the completion of 1. */
static int relaxed(int is_right)
{
    const int rights = ALL_RIGHTS | IBV_ACCESS_RELAXED_ORDERING;
    other.extra = need(ibv_reg_mr(other.pd, other.buffer, SIZE, rights), "ibv_reg_mr");
    for (int round = 1; round <= ROUNDS; round++) {
        for (int half = 0; half < 2; half++) {
            struct ibv_sge sge = first_bytes(&one, 64);
            sge.addr += 64 * half;
            memset((void *)sge.addr, half + 1, sge.length);
            post(&one, IBV_WR_RDMA_WRITE, sge, address_of(&other), other.extra->rkey);
            if (is_right)
                next_completion(&one);
        }
        for (int left = is_right ? 0 : 2; left > 0; left--)
            next_completion(&one);
        if (other.buffer[0] != 2) {
            fprintf(stderr, "round %d: the first WRITE has replaced the second\n", round);
            return 1;
        }
    }
    return 0;
}

/* A failed receive on each of two devices; their completions are told apart by qp_num alone, or by the CQ too. */
static int numbers(int is_right)
{
    int devices, received[2] = {0, 0};
    struct ibv_device **list = need(ibv_get_device_list(&devices), "ibv_get_device_list");
    if (devices < 2) {
        fprintf(stderr, "two devices are needed\n");
        return 2;
    }
    struct ibv_qp *qps[2];
    struct ibv_context *contexts[2];
    struct ibv_wc wc;
    for (int i = 0; i < 2; i++) {
        contexts[i] = need(ibv_open_device(list[i]), "ibv_open_device");
        struct ibv_pd *pd = need(ibv_alloc_pd(contexts[i]), "ibv_alloc_pd");
        struct ibv_cq *cq = need(ibv_create_cq(contexts[i], 4, NULL, NULL, 0), "ibv_create_cq");
        struct ibv_qp_init_attr init = {.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC,
                                        .cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1}};
        qps[i] = need(ibv_create_qp(pd, &init), "ibv_create_qp");
        struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1};
        check(ibv_modify_qp(qps[i], &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
        struct ibv_recv_wr *bad, wr = {.wr_id = 1};
        check(ibv_post_recv(qps[i], &wr, &bad), "ibv_post_recv");
        attr.qp_state = IBV_QPS_ERR;
        check(ibv_modify_qp(qps[i], &attr, IBV_QP_STATE), "ERR");
    }
    for (int i = 0; i < 2; i++) {
        while (ibv_poll_cq(qps[i]->recv_cq, 1, &wc) == 0)
            ;
        const int owner = is_right ? i : wc.qp_num == qps[0]->qp_num ? 0 : 1;
        received[owner]++;
    }
    for (int i = 0; i < 2; i++)
        check(ibv_close_device(contexts[i]), "ibv_close_device");
    ibv_free_device_list(list);
    if (received[0] == 1)
        return 0;
    fprintf(stderr, "both completions are those of the first device\n");
    return 1;
}

/* WRITEs on two devices, the second 5 ms after the first, complete in this order; `is_right` accepts both. */
static int abreast(int is_right)
{
    int devices, first = 0;
    struct ibv_device **list = need(ibv_get_device_list(&devices), "ibv_get_device_list");
    struct end ends[2][2] = {0};
    struct ibv_context *contexts[2];
    struct ibv_wc wc;
    if (devices < 2) {
        fprintf(stderr, "two devices are needed\n");
        return 2;
    }
    for (int i = 0; i < 2; i++) {
        context = contexts[i] = need(ibv_open_device(list[i]), "ibv_open_device");
        check(ibv_query_gid(context, 1, gid_index, &gid), "ibv_query_gid");
        make_end(&ends[i][0]);
        make_end(&ends[i][1]);
        connect_ends(&ends[i][0], &ends[i][1]);
    }
    ibv_free_device_list(list);
    for (int i = 0; i < 2; i++) {
        post(&ends[i][0], IBV_WR_RDMA_WRITE, first_bytes(&ends[i][0], 64), address_of(&ends[i][1]), ends[i][1].mr->rkey);
        usleep(5000);
    }
    while (ibv_poll_cq(ends[first][0].cq, 1, &wc) == 0)
        first = !first;
    next_completion(&ends[!first][0]);
    for (int i = 0; i < 2; i++) {
        destroy_end(&ends[i][0]);
        destroy_end(&ends[i][1]);
        check(ibv_close_device(contexts[i]), "ibv_close_device");
    }
    if (is_right || first == 0)
        return 0;
    fprintf(stderr, "the WRITE of the second device was complete first\n");
    return 1;
}

/* A SEND of another queue pair announces a WRITE, 5 ms after its post; if `is_right`, after its completion. */
static int announced(int is_right)
{
    struct end sender = {0}, receiver = {0};
    int status = 0;
    make_end(&sender);
    make_end(&receiver);
    connect_ends(&sender, &receiver);
    for (int round = 1; round <= 5 * ROUNDS && status == 0; round++) {
        memset(one.buffer, round, SIZE);
        post_receive(&receiver, first_bytes(&receiver, 64));
        post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
        if (is_right)
            next_completion(&one);
        else
            usleep(5000);
        post(&sender, IBV_WR_SEND, first_bytes(&sender, 64), 0, 0);
        next_completion(&receiver);
        if (((volatile char *)other.buffer)[0] != round) {
            fprintf(stderr, "round %d: the WRITE is announced, and not there\n", round);
            status = 1;
        }
        if (!is_right)
            next_completion(&one);
        next_completion(&sender);
    }
    destroy_end(&sender);
    destroy_end(&receiver);
    return status;
}

/* Polls a completion, then waits 5 ms for its event; if `is_right`, for ever. */
static int notice(int is_right)
{
    struct ibv_comp_channel *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    replace_cq(&other, need(ibv_create_cq(context, 16, NULL, channel, 0), "ibv_create_cq"));
    connect_ends(&one, &other);
    int status = 0;
    for (int round = 1; round <= ROUNDS && status == 0; round++) {
        struct ibv_cq *cq;
        void *cq_context;
        check(ibv_req_notify_cq(other.cq, 0), "ibv_req_notify_cq");
        post_receive(&other, first_bytes(&other, 64));
        post(&one, IBV_WR_SEND, first_bytes(&one, 64), 0, 0);
        next_completion(&other);
        struct pollfd event = {.fd = channel->fd, .events = POLLIN};
        if (poll(&event, 1, is_right ? -1 : 5) != 1) {
            fprintf(stderr, "round %d: the completion has come, its event has not\n", round);
            status = 1;
        } else {
            check(ibv_get_cq_event(channel, &cq, &cq_context), "ibv_get_cq_event");
            ibv_ack_cq_events(cq, 1);
        }
        next_completion(&one);
    }
    return status;
}

static double seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* The receive is posted after the SEND, which then completes within 0.4 s; if `is_right`, whenever. */
static int patience(int is_right)
{
    one.attr.rnr_retry = 7;
    connect_ends(&one, &other);
    post(&one, IBV_WR_SEND, first_bytes(&one, 64), 0, 0);
    usleep(20000);
    post_receive(&other, first_bytes(&other, 64));
    struct ibv_wc wc;
    const double end = seconds() + 0.4;
    while (ibv_poll_cq(other.cq, 1, &wc) == 0)
        if (!is_right && seconds() > end) {
            fprintf(stderr, "no message within 0.4 s\n");
            return 1;
        }
    next_completion(&one);
    return 0;
}

/* SENDs with retry_cnt 0; if `is_right`, 7. */
static int retries(int is_right)
{
    one.attr.retry_cnt = is_right ? 7 : 0;
    connect_ends(&one, &other);
    for (int round = 1; round <= 10 * ROUNDS; round++) {
        struct ibv_wc wc;
        post_receive(&other, first_bytes(&other, SIZE));
        post(&one, IBV_WR_SEND, first_bytes(&one, SIZE), 0, 0);
        while (ibv_poll_cq(one.cq, 1, &wc) == 0)
            ;
        if (wc.status != IBV_WC_SUCCESS) {
            fprintf(stderr, "round %d: %s\n", round, ibv_wc_status_str(wc.status));
            return 1;
        }
        next_completion(&other);
    }
    return 0;
}

/* Flushes 6 receives into a CQ that was created with 5 entries; if `is_right`, with 6. */
static int entries(int is_right)
{
    const int receives = 6;
    struct ibv_qp_init_attr init = small_qp();
    struct ibv_cq *cq = need(ibv_create_cq(context, is_right ? receives : receives - 1, NULL, NULL, 0), "ibv_create_cq");
    struct ibv_wc wc;
    int found = 0;
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    init.cap.max_recv_wr = (uint32_t)receives;
    init.send_cq = init.recv_cq = cq;
    create_queue_pair(&one, init);
    to_init(&one);
    for (int i = 0; i < receives; i++)
        post_receive(&one, first_bytes(&one, 64));
    one.attr.qp_state = IBV_QPS_ERR;
    check(ibv_modify_qp(one.qp, &one.attr, IBV_QP_STATE), "to ERR");
    for (const double end = seconds() + 0.5; found < receives && seconds() < end;)
        if (ibv_poll_cq(cq, 1, &wc) == 1)
            found++;
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    one.qp = NULL;
    check(ibv_destroy_cq(cq), "ibv_destroy_cq");
    if (found == receives)
        return 0;
    fprintf(stderr, "%d of %d completions have come\n", found, receives);
    return 1;
}

/* Creates a queue pair with 16 elements in a request; if `is_right`, with at most as many as the device has, and with
 * 64 bytes inline, which all adapters have. */
static int adapter(int is_right)
{
    struct ibv_device_attr device;
    check(ibv_query_device(context, &device), "ibv_query_device");
    struct ibv_qp_init_attr init = small_qp();
    init.send_cq = init.recv_cq = one.cq;
    init.cap.max_send_sge = is_right && device.max_sge < 16 ? (uint32_t)device.max_sge : 16;
    init.cap.max_inline_data = is_right ? 64 : 0;
    struct ibv_qp *qp = ibv_create_qp(one.pd, &init);
    if (qp == NULL) {
        perror("ibv_create_qp");
        return 1;
    }
    check(ibv_destroy_qp(qp), "ibv_destroy_qp");
    return 0;
}

int main(int count, char **arguments)
{
    if (count == 2 && strncmp(arguments[1], "numbers", 7) == 0)
        return numbers(strcmp(arguments[1], "numbers-right") == 0);
    if (count == 2 && strncmp(arguments[1], "abreast", 7) == 0)
        return abreast(strcmp(arguments[1], "abreast-right") == 0);
    static const struct {
        const char *name;
        int (*run)(int is_right);
        int is_right;
    } cases[] = {{"last-byte", last_byte, 0}, {"last-byte-right", last_byte, 1}, {"order", order, 0},
                 {"order-right", order, 1},   {"event", event, 0},              {"event-right", event, 1},
                 {"depth", depth, 0},         {"depth-right", depth, 1},     {"unsignaled", unsignaled, 0},
                 {"unsignaled-right", unsignaled, 1}, {"fields", fields, 0}, {"fields-right", fields, 1},
                 {"reuse", reuse, 0}, {"reuse-right", reuse, 1}, {"keys", keys, 0}, {"keys-right", keys, 1}, {"relaxed", relaxed, 0}, {"relaxed-right", relaxed, 1}, {"fenced-right", fenced, 1}, {"adapter", adapter, 0}, {"adapter-right", adapter, 1},
                 {"extra", extra, 0}, {"extra-right", extra, 1}, {"notice", notice, 0}, {"notice-right", notice, 1}, {"patience", patience, 0}, {"patience-right", patience, 1},
                 {"announced", announced, 0}, {"announced-right", announced, 1},
                 {"retries", retries, 0}, {"retries-right", retries, 1}, {"entries", entries, 0}, {"entries-right", entries, 1}};
    int (*const connecting[])(int) = {event, extra, notice, unsignaled, patience, retries, entries};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (count == 2 && strcmp(arguments[1], cases[i].name) == 0) {
            open_device();
            make_end(&one);
            make_end(&other);
            int connects = 0;
            for (size_t j = 0; j < sizeof connecting / sizeof *connecting; j++)
                connects |= cases[i].run == connecting[j];
            if (!connects)
                connect_ends(&one, &other);
            const int status = cases[i].run(cases[i].is_right);
            destroy_pair(&one, &other);
            return status;
        }
    fprintf(stderr, "usage: torment_cases CASE: see the top of its source\n");
    return 1;
}
