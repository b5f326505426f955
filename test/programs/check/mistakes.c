/*
 * Mistakes of programs, one a run, for `userdma check` (test/system/check/mistakes.test.ts): the argument names it.
 * Those whose program would wait for ever are ended by SIGALRM.
 */
#include "../../../docs/findings/cm.h"
#include "../../../docs/findings/datagrams.h"

static struct end one, other;

static int ended(void)
{
    return destroy_pair(&one, &other);
}

static struct ibv_send_wr write_of(struct ibv_sge *sge)
{
    return (struct ibv_send_wr){.wr_id = 1,
                                .sg_list = sge,
                                .num_sge = 1,
                                .opcode = IBV_WR_RDMA_WRITE,
                                .wr.rdma = {address_of(&other), other.mr->rkey}};
}

/* A request that is posted again has the list of before. */
static int ring_of_sends(void)
{
    make_pair(&one, &other);
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr *bad, first = write_of(&sge), second = write_of(&sge);
    first.next = &second;
    second.next = &first;
    if (ibv_post_send(one.qp, &first, &bad) == 0)
        return 1;
    return ended();
}

static int ring_of_receives(void)
{
    make_pair(&one, &other);
    struct ibv_sge sge = all_of(&one);
    struct ibv_recv_wr *bad, request = {.sg_list = &sge, .num_sge = 1};
    request.next = &request;
    if (ibv_post_recv(one.qp, &request, &bad) == 0)
        return 1;
    return ended();
}

static int wild_next(void)
{
    make_pair(&one, &other);
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr *bad, request = write_of(&sge);
    request.next = (struct ibv_send_wr *)0x5a5a5a5a5a50;
    ibv_post_send(one.qp, &request, &bad);
    return ended();
}

static int negative_elements(void)
{
    make_pair(&one, &other);
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr *bad, request = write_of(&sge);
    request.num_sge = -1;
    ibv_post_send(one.qp, &request, &bad);
    return ended();
}

static int polls_nothing(void)
{
    make_pair(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    struct ibv_wc wc;
    for (int i = 0; i < 200; i++)
        ibv_poll_cq(one.cq, 0, &wc);
    completion(&one);
    return ended();
}

static int cut_number(void)
{
    open_device();
    make_end(&one);
    make_end(&other);
    one.attr.dest_qp_num = (uint16_t)other.qp->qp_num;
    connect_ends(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    completion(&one);
    return ended();
}

static int cut_number_of_datagrams(void)
{
    struct datagram_end from = {0}, to = {0};
    open_device();
    make_datagram_end(&from, QKEY);
    make_datagram_end(&to, QKEY);
    struct ibv_sge sge = {.addr = address_of(&from.end), .length = 64, .lkey = from.end.mr->lkey};
    struct ibv_send_wr *bad, request = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    request.wr.ud.ah = from.ah;
    request.wr.ud.remote_qpn = (uint16_t)to.end.qp->qp_num;
    request.wr.ud.remote_qkey = QKEY;
    check(ibv_post_send(from.end.qp, &request, &bad), "ibv_post_send");
    completion(&from.end);
    destroy_datagram_end(&from);
    destroy_datagram_end(&to);
    return 0;
}

static int cut_key(void)
{
    make_pair(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), (uint16_t)other.mr->rkey);
    completion(&one);
    return ended();
}

/* The address is read behind a key of 32 bits as from a struct with padding, and was sent packed, before a length. */
static int packed_address(void)
{
    make_pair(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other) >> 32 | (uint64_t)SIZE << 32, other.mr->rkey);
    completion(&one);
    return ended();
}

static int only_offset(void)
{
    make_pair(&one, &other);
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), 64, other.mr->rkey);
    completion(&one);
    return ended();
}

/* The index of a pointer to elements is multiplied by their size. */
static int scaled_twice(void)
{
    struct { char bytes[64]; } *elements;
    make_pair(&one, &other);
    elements = (void *)other.buffer;
    struct ibv_sge sge = {.addr = address_of(&one), .length = sizeof *elements, .lkey = one.mr->lkey};
    const uint64_t wrong = (uintptr_t)elements + 3 * sizeof *elements * sizeof *elements;
    post(&one, IBV_WR_RDMA_WRITE, sge, wrong, other.mr->rkey);
    completion(&one);
    return ended();
}

/* One end is connected, and the other forgotten. */
static int half_connected(void)
{
    open_device();
    make_end(&one);
    make_end(&other);
    to_rtr(&one, &other);
    to_rts(&one);
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&one);
    return ended();
}

static int too_many_elements(void)
{
    make_pair(&one, &other);
    struct ibv_sge list[8];
    for (int i = 0; i < 8; i++)
        list[i] = (struct ibv_sge){.addr = address_of(&one), .length = 8, .lkey = one.mr->lkey};
    struct ibv_send_wr *bad, request = {.sg_list = list, .num_sge = 8, .opcode = IBV_WR_SEND};
    ibv_post_send(one.qp, &request, &bad);
    return ended();
}

static int receive_beside_srq(void)
{
    open_device();
    make_end(&one);
    make_end(&other);
    struct ibv_srq_init_attr of_srq = {.attr = {.max_wr = 8, .max_sge = 1}};
    struct ibv_qp_init_attr init = small_qp();
    init.srq = need(ibv_create_srq(one.pd, &of_srq), "ibv_create_srq");
    init.send_cq = init.recv_cq = one.cq;
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    one.qp = need(ibv_create_qp(one.pd, &init), "ibv_create_qp");
    to_init(&one);
    struct ibv_sge sge = all_of(&one);
    struct ibv_recv_wr *bad, request = {.sg_list = &sge, .num_sge = 1};
    ibv_post_recv(one.qp, &request, &bad);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    check(ibv_destroy_srq(init.srq), "ibv_destroy_srq");
    init.srq = NULL;
    one.qp = need(ibv_create_qp(one.pd, &init), "ibv_create_qp");
    return ended();
}

/* The opcodes of completions are not those of requests. */
static int completion_opcode(enum ibv_wr_opcode opcode, int receives)
{
    make_pair(&one, &other);
    for (int i = 0; i < receives; i++)
        post_receive(&other, all_of(&other));
    post(&one, opcode, all_of(&one), address_of(&other), other.mr->rkey);
    completion(&one);
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&one);
    return ended();
}

static int wc_opcode(void)
{
    return completion_opcode((enum ibv_wr_opcode)IBV_WC_RDMA_WRITE, 1);
}

/* Without the mistake: it posts too few receives for its WRITE with immediate and its SEND, and knows it. */
static int immediate_and_none(void)
{
    return completion_opcode(IBV_WR_RDMA_WRITE_WITH_IMM, 0);
}

static int cut_wr_id(void)
{
    make_pair(&one, &other);
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr *bad, request = write_of(&sge);
    int *done = malloc(sizeof *done);
    request.wr_id = (uint32_t)(uintptr_t)done;
    check(ibv_post_send(one.qp, &request, &bad), "ibv_post_send");
    struct ibv_wc wc;
    while (ibv_poll_cq(one.cq, 1, &wc) == 0)
        ;
    *(volatile int *)(uintptr_t)wc.wr_id = 1;
    return ended();
}

static int zero_based(void)
{
    make_pair(&one, &other);
    other.extra = need(ibv_reg_mr(other.pd, other.buffer, SIZE, ALL_RIGHTS | IBV_ACCESS_ZERO_BASED), "ibv_reg_mr");
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.extra->rkey);
    completion(&one);
    return ended();
}

/* One completion, and events of 64. */
static int moderated(void)
{
    open_device();
    struct ibv_comp_channel *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    make_end(&one);
    make_end(&other);
    struct ibv_cq *cq = need(ibv_create_cq(context, 16, NULL, channel, 0), "ibv_create_cq");
    replace_cq(&one, cq);
    connect_ends(&one, &other);
    struct ibv_modify_cq_attr attr = {.attr_mask = IBV_CQ_ATTR_MODERATE, .moderate = {.cq_count = 64}};
    check(ibv_modify_cq(cq, &attr), "ibv_modify_cq");
    check(ibv_req_notify_cq(cq, 0), "ibv_req_notify_cq");
    post(&one, IBV_WR_RDMA_WRITE, all_of(&one), address_of(&other), other.mr->rkey);
    alarm(3);
    void *unused;
    return ibv_get_cq_event(channel, &cq, &unused);
}

static int channel_first(void)
{
    struct rdma_event_channel *channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *id;
    check(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), "rdma_create_id");
    rdma_destroy_event_channel(channel);
    return rdma_destroy_id(id) == 0;
}

/* Before the address is resolved. */
static int early_queue_pair(void)
{
    struct rdma_event_channel *channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *id;
    struct ibv_qp_init_attr init = small_qp();
    check(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), "rdma_create_id");
    const int error = rdma_create_qp(id, NULL, &init);
    check(rdma_destroy_id(id), "rdma_destroy_id");
    rdma_destroy_event_channel(channel);
    return error == 0;
}

static struct datagram_end asks, answers;

/* `asks` sends a datagram, and `answers` has one more receive. */
static void ask(void)
{
    open_device();
    make_datagram_end(&asks, QKEY);
    make_datagram_end(&answers, QKEY);
    for (int i = 0; i < 2; i++)
        post_receive(&answers.end, all_of(&answers.end));
    post_receive(&asks.end, all_of(&asks.end));
    send_datagram(&asks, &answers, 8);
    completion(&answers.end);
}

static int answered(void)
{
    destroy_datagram_end(&asks);
    destroy_datagram_end(&answers);
    return ibv_close_device(context);
}

/* The answer goes to wc.qp_num. */
static int own_number(void)
{
    ask();
    send_datagram(&answers, &answers, 8);
    return answered();
}

/* No mistake: a queue pair wakes itself, and then answers. */
static int own_wakeup(void)
{
    ask();
    send_datagram(&answers, &answers, 8);
    send_datagram(&answers, &asks, 8);
    return answered();
}

/* Immediate data without htonl. Returns that of the completion. */
static uint32_t host_immediate(void)
{
    make_pair(&one, &other);
    post_receive(&other, all_of(&other));
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr *bad, request = write_of(&sge);
    request.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
    request.imm_data = 7;
    check(ibv_post_send(one.qp, &request, &bad), "ibv_post_send");
    completion(&one);
    struct ibv_wc wc;
    while (ibv_poll_cq(other.cq, 1, &wc) == 0)
        ;
    return wc.imm_data;
}

/* The receiver converts it, for an index. */
static int host_immediate_index(void)
{
    ((volatile int *)calloc(64, sizeof(int)))[ntohl(host_immediate())]++;
    return ended();
}

/* It is a number of messages for which the receiver has receives. */
static int lacking_after_immediate(void)
{
    host_immediate();
    post(&one, IBV_WR_SEND, all_of(&one), 0, 0);
    completion(&one);
    return ended();
}

/* Both ends agree on the order, and the program dies of something else. */
static int agreed_immediate(void)
{
    ((volatile int *)NULL)[host_immediate()]++;
    return ended();
}

/* A request fails, and the program ends. */
static int gives_up(void)
{
    make_pair(&one, &other);
    struct ibv_sge sge = all_of(&one);
    struct ibv_send_wr *bad, request = write_of(&sge);
    request.wr.rdma.rkey = 0;
    check(ibv_post_send(one.qp, &request, &bad), "ibv_post_send");
    struct ibv_wc wc;
    while (ibv_poll_cq(one.cq, 1, &wc) == 0)
        ;
    exit(wc.status == IBV_WC_SUCCESS ? 0 : 1);
}

static const struct {
    const char *name;
    int (*run)(void);
} mistakes[] = {
    {"ring-of-sends", ring_of_sends},       {"ring-of-recvs", ring_of_receives},
    {"wild-next", wild_next},               {"negative-sges", negative_elements},
    {"polls-nothing", polls_nothing},       {"cut-number", cut_number},
    {"cut-number-ud", cut_number_of_datagrams}, {"cut-key", cut_key},
    {"packed-address", packed_address},     {"only-offset", only_offset},
    {"wc-opcode", wc_opcode},               {"immediate-and-none", immediate_and_none},
    {"cut-wr-id", cut_wr_id},               {"scaled-twice", scaled_twice},
    {"host-immediate", host_immediate_index}, {"lacking-after-imm", lacking_after_immediate},
    {"agreed-immediate", agreed_immediate}, {"gives-up", gives_up},
    {"half-connected", half_connected},     {"too-many-sges", too_many_elements},
    {"recv-beside-srq", receive_beside_srq},
    {"zero-based", zero_based},             {"moderated", moderated},
    {"channel-first", channel_first},       {"early-qp", early_queue_pair},
    {"own-number", own_number},             {"own-wakeup", own_wakeup},
};

int main(int count, char **arguments)
{
    for (size_t i = 0; count == 2 && i < sizeof mistakes / sizeof mistakes[0]; i++)
        if (strcmp(arguments[1], mistakes[i].name) == 0)
            return mistakes[i].run();
    fprintf(stderr, "usage: mistakes MISTAKE\n");
    return 1;
}
