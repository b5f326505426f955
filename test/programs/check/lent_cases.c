/*
 * An owner tells a peer of memory, changes it, and tells of it again; the peer READs it for the first time: the note
 * late-read of `userdma check` (test/system/check/lent.test.ts). With `right` the peer READs before the change. CASE is
 * how the owner tells the first time. With `writers` two peers are told by datagrams, and WRITE in the wrong order:
 * late-write. With `freed` the owner tells of a block, gives the request up and frees the block, and the peer WRITEs
 * it: memory-gone.
 *
 *   lent_cases CASE [right] | hold
 */
#include "../../../docs/findings/told.h"
#include "../../../docs/findings/cm.h"
#include "../../../docs/findings/datagrams.h"

#include <stdbool.h>
#include <sys/socket.h>

static bool is_right;
static struct ibv_mw *window;

/* What the owner tells of, and by which key the peer READs it. */
struct lent {
    char *bytes;
    uint32_t rkey;
};

static struct told told_of(const struct lent *lent)
{
    return (struct told){(uintptr_t)lent->bytes, lent->rkey, HALF};
}

static void read_lent(struct ibv_qp *qp, struct ibv_cq *cq, struct ibv_sge sge, const struct lent *lent)
{
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_READ,
                                   .send_flags = IBV_SEND_SIGNALED};
    wr.wr.rdma.remote_addr = (uintptr_t)lent->bytes;
    wr.wr.rdma.rkey = lent->rkey;
    check(ibv_post_send(qp, &wr, &bad), "ibv_post_send");
    cm_completion(cq);
}

static void replace_by_extended(struct end *end, uint64_t operations)
{
    check(ibv_destroy_qp(end->qp), "ibv_destroy_qp");
    struct ibv_qp_init_attr_ex init = {
        .qp_type = IBV_QPT_RC,
        .send_cq = end->cq,
        .recv_cq = end->cq,
        .pd = end->pd,
        .cap = {.max_send_wr = 8, .max_recv_wr = 8, .max_send_sge = 2, .max_recv_sge = 1, .max_inline_data = sizeof(struct told)},
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .send_ops_flags = operations,
    };
    end->qp = need(ibv_create_qp_ex(context, &init), "ibv_create_qp_ex");
    to_init(end);
}

/* Tells a peer of memory, and waits until its input ends. */
static int hold(void)
{
    char byte;
    struct end owner = {0}, peer = {0};
    make_pair(&owner, &peer);
    tell(&owner, &peer);
    puts("ready");
    fflush(stdout);
    check(read(0, &byte, 1) < 0, "read");
    return destroy_pair(&owner, &peer);
}

static int connected(void (*tell_first)(struct end *owner, struct end *peer, const struct lent *lent), uint64_t operations,
                     struct lent (*lend)(struct end *owner))
{
    struct end owner = {0}, peer = {0};
    open_device();
    struct ibv_qp_init_attr init = small_qp();
    init.cap.max_inline_data = sizeof(struct told);
    make_end_with(&owner, init, 16);
    make_end(&peer);
    if (operations)
        replace_by_extended(&owner, operations);
    connect_ends(&owner, &peer);
    const struct lent lent = lend ? lend(&owner) : (struct lent){owner.buffer, owner.mr->rkey};
    memset(lent.bytes, 1, HALF);
    tell_first(&owner, &peer, &lent);
    if (is_right)
        read_lent(peer.qp, peer.cq, part_of(&peer, 0, HALF), &lent);
    memset(lent.bytes, 2, HALF);
    tell_first(&owner, &peer, &lent);
    read_lent(peer.qp, peer.cq, part_of(&peer, 0, HALF), &lent);
    if (window)
        check(ibv_dealloc_mw(window), "ibv_dealloc_mw");
    return destroy_pair(&owner, &peer);
}

static void by_send(struct end *owner, struct end *peer, const struct lent *lent)
{
    const struct told told = told_of(lent);
    memcpy(owner->buffer + HALF, &told, sizeof told);
    message(owner, peer, sizeof told);
}

static void by_inline(struct end *owner, struct end *peer, const struct lent *lent)
{
    const struct told told = told_of(lent);
    post_receive(peer, part_of(peer, HALF + 64, 64));
    struct ibv_sge sge = {.addr = (uintptr_t)&told, .length = sizeof told};
    struct ibv_send_wr *bad, wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_INLINE};
    check(ibv_post_send(owner->qp, &wr, &bad), "ibv_post_send");
    completion(owner);
    completion(peer);
}

static void begin(struct end *owner)
{
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(owner->qp);
    ibv_wr_start(qp);
    qp->wr_id = 3;
    qp->wr_flags = IBV_SEND_SIGNALED;
}

static void complete(struct end *owner)
{
    check(ibv_wr_complete(ibv_qp_to_qp_ex(owner->qp)), "ibv_wr_complete");
    completion(owner);
}

static void by_batch(struct end *owner, struct end *peer, const struct lent *lent)
{
    struct told told = told_of(lent);
    post_receive(peer, part_of(peer, HALF + 64, 64));
    begin(owner);
    ibv_wr_send(ibv_qp_to_qp_ex(owner->qp));
    ibv_wr_set_inline_data(ibv_qp_to_qp_ex(owner->qp), &told, sizeof told);
    complete(owner);
    completion(peer);
}

/* In two pieces, which the provider of rxe loses. */
static void by_list(struct end *owner, struct end *peer, const struct lent *lent)
{
    struct told told = told_of(lent);
    const struct ibv_data_buf pieces[] = {{&told, 8}, {&told.rkey, 8}};
    begin(owner);
    ibv_wr_rdma_write(ibv_qp_to_qp_ex(owner->qp), peer->mr->rkey, address_of(peer) + HALF + 128);
    ibv_wr_set_inline_data_list(ibv_qp_to_qp_ex(owner->qp), 2, pieces);
    complete(owner);
}

/* The key of a window of type 1 that is bound to the first half of a region without a right of peers. */
static struct lent lend_window(struct end *owner)
{
    owner->extra = need(ibv_reg_mr(owner->pd, owner->buffer, SIZE, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND), "ibv_reg_mr");
    window = need(ibv_alloc_mw(owner->pd, IBV_MW_TYPE_1), "ibv_alloc_mw");
    struct ibv_mw_bind bind = {.wr_id = 4,
                               .send_flags = IBV_SEND_SIGNALED,
                               .bind_info = {.mr = owner->extra,
                                             .addr = (uintptr_t)owner->buffer,
                                             .length = HALF,
                                             .mw_access_flags = IBV_ACCESS_REMOTE_READ}};
    check(ibv_bind_mw(owner->qp, window, &bind), "ibv_bind_mw");
    completion(owner);
    return (struct lent){owner->buffer, window->rkey};
}

static void make_datagram_ends(struct datagram_end *owner, struct datagram_end *peer)
{
    make_datagram_end(owner, QKEY);
    make_datagram_end(peer, QKEY);
}

/* Messages by UD, the READ by RC. */
static int datagrams(void)
{
    enum { GRH = 40 };
    struct end owner = {0}, peer = {0};
    struct datagram_end from = {0}, to = {0};
    make_pair(&owner, &peer);
    make_datagram_ends(&from, &to);
    const struct lent lent = {owner.buffer, owner.mr->rkey};
    const struct told told = told_of(&lent);
    for (int request = 1; request <= 2; request++) {
        memset(lent.bytes, request, HALF);
        post_receive(&to.end, part_of(&to.end, 64, GRH + sizeof told));
        memcpy(from.end.buffer, &told, sizeof told);
        send_datagram(&from, &to, sizeof told);
        completion(&to.end);
        if (request == 2 || is_right)
            read_lent(peer.qp, peer.cq, part_of(&peer, 0, HALF), &lent);
    }
    destroy_datagram_end(&from);
    destroy_datagram_end(&to);
    return destroy_pair(&owner, &peer);
}

struct hello {
    uint32_t connected, datagrams;
};

static void give(int fd, const void *bytes, size_t length)
{
    check(write(fd, bytes, length) != (ssize_t)length, "write");
}

static void take(int fd, void *bytes, size_t length)
{
    check(read(fd, bytes, length) != (ssize_t)length, "read");
}

static struct hello hello_of(const struct end *end, const struct datagram_end *datagrams)
{
    return (struct hello){end->qp->qp_num, datagrams->end.qp->qp_num};
}

static void connect_to(struct end *end, uint32_t number)
{
    end->attr.dest_qp_num = number;
    to_rtr(end, NULL);
    to_rts(end);
}

/* A process that is told by a datagram, and WRITEs when it gets a byte. */
static void writer(int fd)
{
    enum { GRH = 40 };
    struct end end = {0};
    struct datagram_end datagrams = {0};
    struct hello owner;
    char byte = 0;
    open_device();
    make_end(&end);
    make_datagram_end(&datagrams, QKEY);
    post_receive(&datagrams.end, part_of(&datagrams.end, 64, GRH + sizeof(struct told)));
    const struct hello own = hello_of(&end, &datagrams);
    give(fd, &own, sizeof own);
    take(fd, &owner, sizeof owner);
    connect_to(&end, owner.connected);
    completion(&datagrams.end);
    give(fd, &byte, 1);
    take(fd, &byte, 1);
    const struct told *told = (void *)(datagrams.end.buffer + 64 + GRH);
    post(&end, IBV_WR_RDMA_WRITE, part_of(&end, 0, HALF), told->address, told->rkey);
    completion(&end);
    give(fd, &byte, 1);
    take(fd, &byte, 1);
    destroy_datagram_end(&datagrams);
    destroy_end(&end);
    check(ibv_close_device(context), "ibv_close_device");
    exit(0);
}

/* Two processes are told of the same bytes; the one that was told first writes last. */
static int writers(void)
{
    int sockets[2][2];
    struct end owner[2] = {0};
    struct datagram_end from = {0}, to = {0};
    char byte = 0;
    for (int i = 0; i < 2; i++) {
        check(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets[i]), "socketpair");
        if (fork() == 0)
            writer(sockets[i][1]);
    }
    open_device();
    make_datagram_end(&from, QKEY);
    for (int i = 0; i < 2; i++) {
        make_end(&owner[i]);
        struct hello peer;
        take(sockets[i][0], &peer, sizeof peer);
        const struct hello own = hello_of(&owner[i], &from);
        give(sockets[i][0], &own, sizeof own);
        connect_to(&owner[i], peer.connected);
        owner[i].extra = need(ibv_reg_mr(owner[i].pd, owner[0].buffer, SIZE, ALL_RIGHTS), "ibv_reg_mr");
        const struct told told = {address_of(&owner[0]), owner[i].extra->rkey, HALF};
        memcpy(from.end.buffer, &told, sizeof told);
        to.end.qp = &(struct ibv_qp){.qp_num = peer.datagrams};
        send_datagram(&from, &to, sizeof told);
        take(sockets[i][0], &byte, 1);
    }
    for (int i = 0; i < 2; i++) {
        const int turn = sockets[is_right ? i : !i][0];
        give(turn, &byte, 1);
        take(turn, &byte, 1);
    }
    for (int i = 0; i < 2; i++) {
        give(sockets[i][0], &byte, 1);
        check(wait(NULL) < 0, "wait");
    }
    destroy_datagram_end(&from);
    return destroy_pair(&owner[1], &owner[0]);
}

/* The owner is the end that connects, or the one that accepts. */
static int private_data(bool accepts)
{
    struct cm_end active = {0}, passive = {0};
    resolve(&active, &passive);
    struct cm_end *owner = accepts ? &passive : &active, *peer = accepts ? &active : &passive;
    static char bytes[SIZE];
    const int rights = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ;
    struct ibv_mr *region = NULL;
    struct lent lent = {bytes, 0};
    struct told told = {0};
    const struct rdma_conn_param plain = {.responder_resources = 1, .initiator_depth = 1, .retry_count = 7};
    struct rdma_conn_param parameters[] = {plain, plain};
    memset(bytes, 1, HALF);
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1)
            take_request(&passive);
        if (pass == accepts) {
            region = need(ibv_reg_mr(owner->pd, bytes, SIZE, rights), "ibv_reg_mr");
            lent.rkey = region->rkey;
            told = told_of(&lent);
            parameters[pass].private_data = &told;
            parameters[pass].private_data_len = sizeof told;
        }
        if (pass == 0)
            check(rdma_connect(active.id, &parameters[0]), "rdma_connect");
    }
    struct ibv_sge place = {.addr = (uintptr_t)peer->buffer + HALF, .length = HALF, .lkey = peer->mr->lkey};
    struct ibv_recv_wr *bad, receive = {.wr_id = 2, .sg_list = &place, .num_sge = 1};
    check(ibv_post_recv(peer->id->qp, &receive, &bad), "ibv_post_recv");
    check(rdma_accept(passive.id, &parameters[1]), "rdma_accept");
    event_of(active.channel, RDMA_CM_EVENT_ESTABLISHED);
    event_of(passive.channel, RDMA_CM_EVENT_ESTABLISHED);
    struct ibv_sge data = {.addr = (uintptr_t)peer->buffer, .length = HALF, .lkey = peer->mr->lkey};
    if (is_right)
        read_lent(peer->id->qp, peer->id->qp->send_cq, data, &lent);
    memset(bytes, 2, HALF);
    memcpy(owner->buffer, &told, sizeof told);
    struct ibv_sge message = {.addr = (uintptr_t)owner->buffer, .length = sizeof told, .lkey = owner->mr->lkey};
    struct ibv_send_wr *failed, send = {.wr_id = 1, .sg_list = &message, .num_sge = 1, .opcode = IBV_WR_SEND};
    check(ibv_post_send(owner->id->qp, &send, &failed), "ibv_post_send");
    cm_completion(owner->id->qp->send_cq);
    cm_completion(peer->id->qp->recv_cq);
    read_lent(peer->id->qp, peer->id->qp->send_cq, data, &lent);
    check(rdma_disconnect(active.id), "rdma_disconnect");
    event_of(passive.channel, RDMA_CM_EVENT_DISCONNECTED);
    check(rdma_disconnect(passive.id), "rdma_disconnect");
    event_of(active.channel, RDMA_CM_EVENT_DISCONNECTED);
    rdma_destroy_qp(owner->id);
    check(ibv_dereg_mr(region), "ibv_dereg_mr");
    destroy_cm_pair(&active, &passive);
    return 0;
}

static int freed(void)
{
    enum { BLOCK = 1 << 20 }; /* free gives it back to the system */
    struct end owner = {0}, peer = {0};
    make_pair(&owner, &peer);
    char *block = need(malloc(BLOCK), "malloc");
    owner.extra = need(ibv_reg_mr(owner.pd, block, BLOCK, ALL_RIGHTS), "ibv_reg_mr");
    const struct ibv_mr told_of = *owner.extra;
    tell_of(&owner, &peer, &told_of);
    if (!is_right)
        free(block);
    write_told(&peer, &told_of);
    check(ibv_dereg_mr(owner.extra), "ibv_dereg_mr");
    owner.extra = NULL;
    if (is_right)
        free(block);
    return destroy_pair(&owner, &peer);
}

int main(int count, char **arguments)
{
    const char *name = count > 1 ? arguments[1] : "";
    is_right = count > 2 && strcmp(arguments[2], "right") == 0;
    if (strcmp(name, "hold") == 0)
        return hold();
    if (strcmp(name, "send") == 0)
        return connected(by_send, 0, NULL);
    if (strcmp(name, "inline") == 0)
        return connected(by_inline, 0, NULL);
    if (strcmp(name, "batch") == 0)
        return connected(by_batch, IBV_QP_EX_WITH_SEND, NULL);
    if (strcmp(name, "list") == 0)
        return connected(by_list, IBV_QP_EX_WITH_RDMA_WRITE, NULL);
    if (strcmp(name, "window") == 0)
        return connected(by_send, 0, lend_window);
    if (strcmp(name, "ud") == 0)
        return datagrams();
    if (strcmp(name, "writers") == 0)
        return writers();
    if (strcmp(name, "freed") == 0)
        return freed();
    if (strcmp(name, "connect") == 0)
        return private_data(false);
    if (strcmp(name, "accept") == 0)
        return private_data(true);
    fprintf(stderr, "usage: lent_cases CASE [right]\n");
    return 1;
}
