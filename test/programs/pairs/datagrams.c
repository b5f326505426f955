/*
 * Datagrams, address handles, multicast groups and unreliable connections with plain libibverbs.
 *
 *   datagrams [-d DEVICE] [-x SECOND DEVICE] [-g GID-INDEX] [CASE]
 *
 * End 0 is on the first device, end 1 on the second device (or the same). The exit status is 1 if a result differs or a
 * call fails.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>

#include "../endpoint.h"

#define QKEY 0x1234567
#define LENGTH 65536
/* Bytes before the payload of a datagram in a receive buffer. The IPv4 header is the last 20 of these bytes. */
#define GRH_BYTES 40
#define IPV4_HEADER 20
#define IPV4_SOURCE (IPV4_HEADER + 12)
#define IPV4_DESTINATION (IPV4_HEADER + 16)
#define MULTICAST_QPN 0xffffff
#define GROUP "239.91.2.3"
#define IMMEDIATE 77
#define WRITE_OFFSET 32768 /* of RDMA WRITEs, in the buffer of end 1 */
#define MAX_POLLS 200000 /* 100 us apart: 20 s */

static struct options options;
static struct endpoint ends[2]; /* their RC queue pairs are not connected */
static struct ibv_qp *ud[2];
static struct ibv_ah *ah_to_end_1;
static int wrong_results;

static void check(const char *subject, long long actual, long long expected)
{
    if (actual == expected)
        return;
    printf("  %s: %lld, not %lld\n", subject, actual, expected);
    wrong_results++;
}

static struct ibv_qp *create_qp_of_type(struct endpoint *end, enum ibv_qp_type type)
{
    struct ibv_qp_init_attr init = {
        .send_cq = end->cq,
        .recv_cq = end->cq,
        .cap = {.max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 2, .max_recv_sge = 2, .max_inline_data = 64},
        .qp_type = type,
    };
    struct ibv_qp *qp = ibv_create_qp(end->pd, &init);
    NEED(qp, "ibv_create_qp: %s", strerror(errno));
    return qp;
}

static void modify_state(struct ibv_qp *qp, struct ibv_qp_attr attr, int mask)
{
    NEED(ibv_modify_qp(qp, &attr, mask | IBV_QP_STATE) == 0, "ibv_modify_qp to %d: %s", attr.qp_state,
         strerror(errno));
}

static struct ibv_qp *create_ud(struct endpoint *end)
{
    struct ibv_qp *qp = create_qp_of_type(end, IBV_QPT_UD);
    modify_state(qp, (struct ibv_qp_attr){.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = QKEY},
                 IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY);
    modify_state(qp, (struct ibv_qp_attr){.qp_state = IBV_QPS_RTR}, 0);
    modify_state(qp, (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS, .sq_psn = 1}, IBV_QP_SQ_PSN);
    return qp;
}

static struct ibv_ah *create_ah(struct endpoint *from, union ibv_gid to)
{
    struct ibv_ah_attr attr = {
        .is_global = 1,
        .port_num = 1,
        .grh = {.dgid = to, .sgid_index = (uint8_t)from->gid_index, .hop_limit = 64},
    };
    struct ibv_ah *handle = ibv_create_ah(from->pd, &attr);
    NEED(handle, "ibv_create_ah: %s", strerror(errno));
    return handle;
}

static void post_receive(struct ibv_qp *qp, struct endpoint *end, uint64_t id, uint32_t length)
{
    struct ibv_sge sge = {(uintptr_t)end->buffer, length, end->mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = id, .sg_list = &sge, .num_sge = 1}, *bad;
    const int error = ibv_post_recv(qp, &wr, &bad);
    NEED(error == 0, "ibv_post_recv: %s", strerror(error));
}

/* Posts a signaled request with the first `length` bytes of the end's buffer. */
static int post(struct ibv_qp *qp, struct endpoint *end, struct ibv_send_wr wr, uint32_t length)
{
    struct ibv_sge sge = {(uintptr_t)end->buffer, length, end->mr->lkey};
    struct ibv_send_wr *bad;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.send_flags |= IBV_SEND_SIGNALED;
    return ibv_post_send(qp, &wr, &bad);
}

/* Sends from end 0, with IMMEDIATE. */
static void send_datagram(uint64_t id, uint32_t length, struct ibv_ah *to, uint32_t qpn, uint32_t qkey)
{
    struct ibv_send_wr wr = {.wr_id = id,
                             .opcode = IBV_WR_SEND_WITH_IMM,
                             .imm_data = htonl(IMMEDIATE),
                             .wr.ud = {.ah = to, .remote_qpn = qpn, .remote_qkey = qkey}};
    NEED(post(ud[0], &ends[0], wr, length) == 0, "ibv_post_send: %s", strerror(errno));
}

/* Waits for the next completion, which must be that of `id`. */
static struct ibv_wc wait_for_completion(struct endpoint *end, uint64_t id, int status)
{
    struct ibv_wc wc = {0};
    for (int polls = 0, count = 0; count == 0; polls++) {
        NEED(polls < MAX_POLLS, "no completion came for request %d", (int)id);
        count = ibv_poll_cq(end->cq, 1, &wc);
        NEED(count >= 0, "ibv_poll_cq: %d", count);
        if (count == 0)
            usleep(100);
    }
    check("request", (long long)wc.wr_id, (long long)id);
    check("status", wc.status, status);
    return wc;
}

/* Waits until the byte is not 0. */
static void wait_for_byte(const volatile uint8_t *byte)
{
    for (int polls = 0; *byte == 0; polls++) {
        NEED(polls < MAX_POLLS, "no byte was written");
        usleep(100);
    }
}

static union ibv_gid group_gid(void)
{
    union ibv_gid gid = {.raw = {[10] = 0xff, [11] = 0xff}};
    inet_pton(AF_INET, GROUP, gid.raw + 12);
    return gid;
}

static void fill(struct endpoint *end, uint32_t length)
{
    for (uint32_t i = 0; i < length; i++)
        end->buffer[i] = (uint8_t)(i * 7 + 3);
}

/* ---- cases ---- */

static void one_datagram(void)
{
    fill(&ends[0], 1000);
    post_receive(ud[1], &ends[1], 10, 2000);
    send_datagram(1, 1000, ah_to_end_1, ud[1]->qp_num, QKEY);
    wait_for_completion(&ends[0], 1, IBV_WC_SUCCESS);
    const struct ibv_wc wc = wait_for_completion(&ends[1], 10, IBV_WC_SUCCESS);
    check("length", wc.byte_len, 1000 + GRH_BYTES);
    check("sender", wc.src_qp, ud[0]->qp_num);
    check("flags", (int)wc.wc_flags, IBV_WC_GRH | IBV_WC_WITH_IMM);
    check("immediate", ntohl(wc.imm_data), IMMEDIATE);
    check("P_Key index", wc.pkey_index, 0);
    check("payload", memcmp(ends[1].buffer + GRH_BYTES, ends[0].buffer, 1000), 0);
    check("IPv4 in the header", ends[1].buffer[IPV4_HEADER], 0x45); /* version 4, 5 words */
    check("source in the header", memcmp(ends[1].buffer + IPV4_SOURCE, ends[0].gid.raw + 12, 4), 0);
    check("destination in the header", memcmp(ends[1].buffer + IPV4_DESTINATION, ends[1].gid.raw + 12, 4), 0);
}

static void reply_address(void)
{
    struct ibv_wc wc;
    post_receive(ud[1], &ends[1], 11, 2000);
    send_datagram(2, 8, ah_to_end_1, ud[1]->qp_num, QKEY);
    wait_for_completion(&ends[0], 2, IBV_WC_SUCCESS);
    wc = wait_for_completion(&ends[1], 11, IBV_WC_SUCCESS);
    struct ibv_ah_attr attr;
    struct ibv_grh *header = (struct ibv_grh *)ends[1].buffer;
    const int error = ibv_init_ah_from_wc(ends[1].context, 1, &wc, header, &attr);
    check("ibv_init_ah_from_wc", error, 0);
    if (error != 0)
        return;
    check("the reply address", memcmp(&attr.grh.dgid, &ends[0].gid, 16), 0);
    struct ibv_ah *reply_ah = ibv_create_ah(ends[1].pd, &attr);
    NEED(reply_ah, "ibv_create_ah: %s", strerror(errno));
    post_receive(ud[0], &ends[0], 12, 2000);
    struct ibv_send_wr wr = {.wr_id = 3, .opcode = IBV_WR_SEND, .wr.ud = {reply_ah, wc.src_qp, QKEY}};
    NEED(post(ud[1], &ends[1], wr, 4) == 0, "ibv_post_send: %s", strerror(errno));
    wait_for_completion(&ends[1], 3, IBV_WC_SUCCESS);
    check("length", wait_for_completion(&ends[0], 12, IBV_WC_SUCCESS).byte_len, 4 + GRH_BYTES);
    NEED(ibv_destroy_ah(reply_ah) == 0, "ibv_destroy_ah: %s", strerror(errno));
}

/* A datagram with a wrong Q_Key, or too long for the buffer, consumes no receive. */
static void dropped_datagrams(void)
{
    post_receive(ud[1], &ends[1], 13, GRH_BYTES + 100);
    send_datagram(4, 8, ah_to_end_1, ud[1]->qp_num, QKEY + 1);
    send_datagram(5, 101, ah_to_end_1, ud[1]->qp_num, QKEY);
    send_datagram(6, 100, ah_to_end_1, ud[1]->qp_num, QKEY);
    for (uint64_t id = 4; id <= 6; id++)
        wait_for_completion(&ends[0], id, IBV_WC_SUCCESS);
    check("length", wait_for_completion(&ends[1], 13, IBV_WC_SUCCESS).byte_len, 100 + GRH_BYTES);
}

static void multicast(void)
{
    const union ibv_gid gid = group_gid();
    struct ibv_ah *to = create_ah(&ends[0], gid);
    NEED(ibv_attach_mcast(ud[1], &gid, 0) == 0, "ibv_attach_mcast: %s", strerror(errno));
    check("attached twice", ibv_attach_mcast(ud[1], &gid, 0), 0);
    check("attached to a GID that is no group", ibv_attach_mcast(ud[1], &ends[1].gid, 0), EINVAL);
    check("an RC queue pair attached", ibv_attach_mcast(ends[1].qp, &gid, 0), EINVAL);
    post_receive(ud[1], &ends[1], 14, 2000);
    send_datagram(7, 300, to, MULTICAST_QPN, QKEY);
    wait_for_completion(&ends[0], 7, IBV_WC_SUCCESS);
    check("length", wait_for_completion(&ends[1], 14, IBV_WC_SUCCESS).byte_len, 300 + GRH_BYTES);
    check("the group in the header", memcmp(ends[1].buffer + IPV4_DESTINATION, gid.raw + 12, 4), 0);
    check("destroyed while attached", ibv_destroy_qp(ud[1]), EBUSY);
    check("detached", ibv_detach_mcast(ud[1], &gid, 0), 0);
    check("detached twice", ibv_detach_mcast(ud[1], &gid, 0), EINVAL);
    post_receive(ud[1], &ends[1], 15, 2000);
    send_datagram(8, 8, to, MULTICAST_QPN, QKEY);
    send_datagram(9, 9, ah_to_end_1, ud[1]->qp_num, QKEY);
    wait_for_completion(&ends[0], 8, IBV_WC_SUCCESS);
    wait_for_completion(&ends[0], 9, IBV_WC_SUCCESS);
    check("length", wait_for_completion(&ends[1], 15, IBV_WC_SUCCESS).byte_len, 9 + GRH_BYTES);
    NEED(ibv_destroy_ah(to) == 0, "ibv_destroy_ah: %s", strerror(errno));
}

/* A local error (a wrong lkey) stops the send queue until the program modifies the state. */
static void send_queue_error(void)
{
    struct ibv_qp_attr attr;
    struct ibv_qp_init_attr init;
    struct ibv_send_wr wr = {.wr_id = 20, .opcode = IBV_WR_SEND, .wr.ud = {ah_to_end_1, ud[1]->qp_num, QKEY}};
    struct ibv_mr *mr = ends[0].mr;
    struct ibv_mr wrong_mr = *mr;
    wrong_mr.lkey = mr->lkey ^ 0x100;
    ends[0].mr = &wrong_mr;
    NEED(post(ud[0], &ends[0], wr, 8) == 0, "ibv_post_send: %s", strerror(errno));
    ends[0].mr = mr;
    wait_for_completion(&ends[0], 20, IBV_WC_LOC_PROT_ERR);
    NEED(ibv_query_qp(ud[0], &attr, IBV_QP_STATE, &init) == 0, "ibv_query_qp: %s", strerror(errno));
    check("state", attr.qp_state, IBV_QPS_SQE);
    send_datagram(21, 8, ah_to_end_1, ud[1]->qp_num, QKEY);
    wait_for_completion(&ends[0], 21, IBV_WC_WR_FLUSH_ERR);
    modify_state(ud[0], (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS, .cur_qp_state = IBV_QPS_SQE}, IBV_QP_CUR_STATE);
    post_receive(ud[1], &ends[1], 22, 2000);
    send_datagram(23, 8, ah_to_end_1, ud[1]->qp_num, QKEY);
    wait_for_completion(&ends[0], 23, IBV_WC_SUCCESS);
    wait_for_completion(&ends[1], 22, IBV_WC_SUCCESS);
}

static void connect_uc(struct ibv_qp *qp, struct endpoint *end, struct endpoint *peer, uint32_t qpn)
{
    modify_state(qp,
                 (struct ibv_qp_attr){
                     .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_WRITE},
                 IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
    modify_state(qp,
                 (struct ibv_qp_attr){.qp_state = IBV_QPS_RTR,
                                      .path_mtu = IBV_MTU_1024,
                                      .dest_qp_num = qpn,
                                      .rq_psn = 5,
                                      .ah_attr = {.is_global = 1,
                                                  .port_num = 1,
                                                  .grh = {.dgid = peer->gid, .sgid_index = (uint8_t)end->gid_index}}},
                 IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN);
    modify_state(qp, (struct ibv_qp_attr){.qp_state = IBV_QPS_RTS, .sq_psn = 5}, IBV_QP_SQ_PSN);
}

static void unreliable_connection(void)
{
    struct ibv_qp *uc[2] = {create_qp_of_type(&ends[0], IBV_QPT_UC), create_qp_of_type(&ends[1], IBV_QPT_UC)};
    for (int i = 0; i < 2; i++)
        connect_uc(uc[i], &ends[i], &ends[1 - i], uc[1 - i]->qp_num);
    fill(&ends[0], 30000);
    memset(ends[1].buffer, 0, LENGTH);
    post_receive(uc[1], &ends[1], 30, 30000);
    NEED(post(uc[0], &ends[0], (struct ibv_send_wr){.wr_id = 31, .opcode = IBV_WR_SEND}, 30000) == 0, "ibv_post_send");
    wait_for_completion(&ends[0], 31, IBV_WC_SUCCESS);
    check("length", wait_for_completion(&ends[1], 30, IBV_WC_SUCCESS).byte_len, 30000);
    check("payload", memcmp(ends[0].buffer, ends[1].buffer, 30000), 0);
    /* A SEND that finds no receive is dropped. The WRITE behind the SEND shows when the next receive may be posted. */
    NEED(post(uc[0], &ends[0], (struct ibv_send_wr){.wr_id = 32, .opcode = IBV_WR_SEND}, 100) == 0, "ibv_post_send");
    wait_for_completion(&ends[0], 32, IBV_WC_SUCCESS);
    struct ibv_send_wr write = {.wr_id = 36, .opcode = IBV_WR_RDMA_WRITE};
    write.wr.rdma.remote_addr = (uintptr_t)ends[1].buffer + WRITE_OFFSET;
    write.wr.rdma.rkey = ends[1].mr->rkey;
    NEED(post(uc[0], &ends[0], write, 1) == 0, "ibv_post_send: %s", strerror(errno));
    wait_for_completion(&ends[0], 36, IBV_WC_SUCCESS);
    wait_for_byte(&ends[1].buffer[WRITE_OFFSET]);
    post_receive(uc[1], &ends[1], 33, 0);
    write.wr_id = 34;
    write.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
    write.imm_data = htonl(5);
    NEED(post(uc[0], &ends[0], write, 5000) == 0, "ibv_post_send: %s", strerror(errno));
    wait_for_completion(&ends[0], 34, IBV_WC_SUCCESS);
    const struct ibv_wc wc = wait_for_completion(&ends[1], 33, IBV_WC_SUCCESS);
    check("opcode", wc.opcode, IBV_WC_RECV_RDMA_WITH_IMM);
    check("immediate", ntohl(wc.imm_data), 5);
    check("payload", memcmp(ends[0].buffer, ends[1].buffer + WRITE_OFFSET, 5000), 0);
    struct ibv_send_wr read = {.wr_id = 35, .opcode = IBV_WR_RDMA_READ, .wr.rdma = write.wr.rdma};
    NEED(post(uc[0], &ends[0], read, 8) == 0, "ibv_post_send: %s", strerror(errno));
    wait_for_completion(&ends[0], 35, IBV_WC_LOC_QP_OP_ERR);
    for (int i = 0; i < 2; i++)
        NEED(ibv_destroy_qp(uc[i]) == 0, "ibv_destroy_qp: %s", strerror(errno));
}

static void mistakes(void)
{
    struct ibv_ah_attr attr = {.is_global = 0, .port_num = 1};
    check("an address without GRH", !ibv_create_ah(ends[0].pd, &attr) && errno == EINVAL, 1);
    attr = (struct ibv_ah_attr){.is_global = 1, .port_num = 1, .grh = {.dgid = ends[1].gid, .sgid_index = 200}};
    check("an address from an empty GID entry", !ibv_create_ah(ends[0].pd, &attr) && errno == ENODATA, 1);
    struct ibv_qp_attr mtu_attr = {.path_mtu = IBV_MTU_1024};
    check("a path MTU for datagrams", ibv_modify_qp(ud[0], &mtu_attr, IBV_QP_PATH_MTU), EINVAL);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"one datagram", one_datagram}, {"reply address", reply_address},
    {"dropped datagrams", dropped_datagrams}, {"multicast", multicast},
    {"send queue error", send_queue_error}, {"unreliable connection", unreliable_connection},
    {"mistakes", mistakes},
};

int main(int argc, char **argv)
{
    const char *second = NULL;
    options = default_options;
    for (int option; (option = getopt(argc, argv, "d:x:g:")) != -1;)
        switch (option) {
        case 'd':
            options.device = optarg;
            break;
        case 'x':
            second = optarg;
            break;
        case 'g':
            options.gid_index = atoi(optarg);
            break;
        default:
            fail("usage: %s [-d DEVICE] [-x SECOND DEVICE] [-g GID-INDEX] [CASE]", argv[0]);
        }
    create_endpoint(&ends[0], open_named(options.device), &options, LENGTH, 1);
    create_endpoint(&ends[1], second ? open_named(second) : ends[0].context, &options, LENGTH, 1);
    for (int i = 0; i < 2; i++)
        ud[i] = create_ud(&ends[i]);
    ah_to_end_1 = create_ah(&ends[0], ends[1].gid);
    int wrong_cases = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (optind < argc && strcmp(argv[optind], cases[i].name) != 0)
            continue;
        const int before = wrong_results;
        cases[i].run();
        printf("%s: %s\n", cases[i].name, wrong_results == before ? "ok" : "WRONG");
        wrong_cases += wrong_results != before;
    }
    for (int i = 0; i < 2; i++)
        NEED(ibv_destroy_qp(ud[i]) == 0, "ibv_destroy_qp: %s", strerror(errno));
    NEED(ibv_destroy_ah(ah_to_end_1) == 0, "ibv_destroy_ah: %s", strerror(errno));
    destroy_endpoint(&ends[0]);
    destroy_endpoint(&ends[1]);
    return wrong_cases > 0;
}
