/*
 * Queue pairs that are reset and connected again, one case a run, for `userdma check`
 * (test/system/check/lives.test.ts): the argument names it. The first ones are mistakes: only one end is reset.
 */
#include "../../../docs/findings/pair.h"

#define MESSAGES 4

static struct end one, other;

static void to_reset(struct end *end)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_RESET};
    check(ibv_modify_qp(end->qp, &attr, IBV_QP_STATE), "ibv_modify_qp to RESET");
    to_init(end);
}

/* The end begins again at its old PSN. */
static void again(struct end *end, struct end *peer)
{
    to_reset(end);
    to_rtr(end, peer);
    to_rts(end);
}

/* The bytes of one packet. */
static struct ibv_sge part_of(const struct end *end, int i)
{
    return (struct ibv_sge){.addr = address_of(end) + i * SIZE / MESSAGES, .length = SIZE / MESSAGES, .lkey = end->mr->lkey};
}

static void post_one(enum ibv_wr_opcode opcode)
{
    post(&one, opcode, part_of(&one, 0), address_of(&other), other.mr->rkey);
}

static void send_all(enum ibv_wr_opcode opcode)
{
    for (int i = 0; opcode == IBV_WR_SEND && i < MESSAGES; i++)
        post_receive(&other, part_of(&other, i));
    for (int i = 0; i < MESSAGES; i++)
        post_one(opcode);
    for (int i = 0; i < MESSAGES; i++)
        completion(&one);
}

static int one_end(enum ibv_wr_opcode opcode)
{
    make_pair(&one, &other);
    send_all(opcode);
    again(&one, &other);
    send_all(opcode);
    return destroy_pair(&one, &other);
}

static int sends(void)
{
    return one_end(IBV_WR_SEND);
}

static int writes(void)
{
    return one_end(IBV_WR_RDMA_WRITE);
}

/* The acknowledgement of the second life is behind what was sent in it. */
static int single(void)
{
    make_pair(&one, &other);
    one.attr.timeout = 8;
    send_all(IBV_WR_RDMA_WRITE);
    again(&one, &other);
    post_one(IBV_WR_RDMA_WRITE);
    completion(&one);
    return destroy_pair(&one, &other);
}

/* The ends have not agreed upon the first PSN. */
static int begins_behind(void)
{
    open_device();
    make_end(&one);
    make_end(&other);
    other.attr.rq_psn = one.attr.sq_psn + MESSAGES;
    connect_ends(&one, &other);
    send_all(IBV_WR_RDMA_WRITE);
    return destroy_pair(&one, &other);
}

static void connect_again(void)
{
    to_reset(&one);
    to_reset(&other);
    connect_ends(&one, &other);
}

static int old_completion(void)
{
    make_pair(&one, &other);
    post_one(IBV_WR_RDMA_WRITE);
    usleep(100000); /* until it is acknowledged */
    connect_again();
    strcpy(one.buffer, "new");
    post_one(IBV_WR_RDMA_WRITE);
    while (*(volatile char *)other.buffer != 'n')
        ;
    completion(&one);
    completion(&one);
    return destroy_pair(&one, &other);
}

/* ---- no mistakes ---- */

static int both_ends(void)
{
    make_pair(&one, &other);
    for (int life = 0; life < 3; life++) {
        send_all(IBV_WR_SEND);
        drain(&other);
        send_all(IBV_WR_RDMA_WRITE);
        connect_again();
    }
    return destroy_pair(&one, &other);
}

/* The peer is connected again while the request is repeated. */
static int peer_follows(void)
{
    make_pair(&one, &other);
    send_all(IBV_WR_RDMA_WRITE);
    one.attr.retry_cnt = 7;
    one.attr.timeout = 15;
    again(&one, &other);
    post_one(IBV_WR_RDMA_WRITE);
    usleep(20000); /* the peer answers it as a duplicate */
    again(&other, &one);
    completion(&one);
    return destroy_pair(&one, &other);
}

/* The new life begins where the peer is. */
static int goes_on(void)
{
    make_pair(&one, &other);
    send_all(IBV_WR_RDMA_WRITE);
    one.attr.sq_psn += MESSAGES;
    again(&one, &other);
    send_all(IBV_WR_RDMA_WRITE);
    return destroy_pair(&one, &other);
}

static int old_drained(void)
{
    make_pair(&one, &other);
    post_one(IBV_WR_RDMA_WRITE);
    usleep(100000); /* until it is acknowledged */
    connect_again();
    completion(&one);
    post_one(IBV_WR_RDMA_READ);
    completion(&one);
    return destroy_pair(&one, &other);
}

static const struct {
    const char *name;
    int (*run)(void);
} cases[] = {
    {"sends", sends},         {"writes", writes},             {"single", single},
    {"behind", begins_behind}, {"old-completion", old_completion}, {"both-ends", both_ends},
    {"peer-follows", peer_follows}, {"goes-on", goes_on},     {"old-drained", old_drained},
};

int main(int count, char **arguments)
{
    for (size_t i = 0; count == 2 && i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(arguments[1], cases[i].name) == 0)
            return cases[i].run();
    fprintf(stderr, "usage: lives CASE\n");
    return 1;
}
