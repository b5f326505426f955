/*
 * Correct programs, one of each kind, for `userdma check` under `--torment` (test/system/check/correct.test.ts): none
 * has a finding, with any seed, on any device that has the services. They assume no more than verbs promise.
 *
 *   correct CASE
 */
#define _GNU_SOURCE
#include "correct.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <infiniband/efadv.h>
#include <infiniband/mlx5dv.h>
#include <poll.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>
#include <rdma/rsocket.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* Two ends that are connected, each with its CQ. */
struct two {
    struct ibv_cq *cq[2];
    struct ibv_qp *qp[2];
};

static struct two open_two(enum ibv_qp_type type, uint64_t operations)
{
    struct two two;
    for (int i = 0; i < 2; i++) {
        two.cq[i] = create_cq(2 * DEPTH, NULL);
        two.qp[i] = create_qp(type, two.cq[i], two.cq[i], NULL, operations);
    }
    connect_both(two.qp[0], two.qp[1]);
    return two;
}

static void close_two(struct two *two)
{
    for (int i = 0; i < 2; i++)
        destroy_qp(two->qp[i]);
    for (int i = 0; i < 2; i++)
        destroy_cq(two->cq[i]);
}

/* ---- messages ---- */

static void ping_pong(void)
{
    struct two two = open_two(reliable(), 0);
    for (int round = 0; round < ROUNDS; round++)
        for (int from = 0; from < 2; from++) {
            post_receive(two.qp[!from], 2, memory[1], BLOCK);
            fill(memory[0], round, BLOCK);
            send_piece(two.qp[from], 1, memory[0], BLOCK, IBV_SEND_SIGNALED);
            next_of(two.cq[!from], 2);
            must(is_filled(memory[1], round, BLOCK), "bytes");
            next_of(two.cq[from], 1);
        }
    close_two(&two);
}

/* As many messages as the receiver has receives, then one for each credit that it sends back. */
static void credits(void)
{
    enum { MESSAGES = 30, WINDOW = 4, CREDIT = 8 };
    struct two two = open_two(reliable(), 0);
    for (int i = 0; i < WINDOW; i++) {
        post_receive(two.qp[1], i, memory[i], 64);
        post_receive(two.qp[0], i, memory[CREDIT + i], 8);
    }
    int sent = 0, received = 0, credit = WINDOW, owed = 0, outstanding[2] = {0};
    while (received < MESSAGES || outstanding[0] > 0 || outstanding[1] > 0 || credit < WINDOW) {
        for (; owed > 0 && outstanding[1] < DEPTH; owed--, outstanding[1]++)
            send_piece(two.qp[1], 100, memory[30], 1, IBV_SEND_SIGNALED);
        for (; sent < MESSAGES && credit > 0 && outstanding[0] < DEPTH; credit--, outstanding[0]++) {
            fill(memory[20 + sent % DEPTH], sent, 64);
            send_piece(two.qp[0], 100, memory[20 + sent % DEPTH], 64, IBV_SEND_SIGNALED);
            sent++;
        }
        struct ibv_wc wc;
        for (int i = 0; i < 2; i++)
            while (ibv_poll_cq(two.cq[i], 1, &wc) > 0) {
                must(wc.status == IBV_WC_SUCCESS, ibv_wc_status_str(wc.status));
                if (wc.wr_id == 100) {
                    outstanding[i]--;
                } else if (i == 0) {
                    post_receive(two.qp[0], wc.wr_id, memory[CREDIT + wc.wr_id], 8);
                    credit++;
                } else {
                    must(has_srd || is_filled(memory[wc.wr_id], received, 64), "order of messages");
                    received++;
                    post_receive(two.qp[1], wc.wr_id, memory[wc.wr_id], 64);
                    owed++;
                }
            }
        sched_yield();
    }
    close_two(&two);
}

/* One of four sends is signaled; its completion frees the slots of the others. */
static void unsignaled(void)
{
    struct two two = open_two(IBV_QPT_RC, 0);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < 4; i++) {
            fill(memory[i], round + i, BLOCK);
            access_remote(two.qp[0], IBV_WR_RDMA_WRITE, i, memory[i], BLOCK, memory[8 + i],
                          i == 3 ? IBV_SEND_SIGNALED : 0);
        }
        next_of(two.cq[0], 3);
        for (int i = 0; i < 4; i++)
            must(is_filled(memory[8 + i], round + i, BLOCK), "bytes");
    }
    close_two(&two);
}

/*
 * Requests that were linked once: the notification goes with its data, and then alone. And a list for which there is
 * room for one: its rest is posted from bad_wr on as places come free.
 */
static void linked(void)
{
    struct two two = open_two(IBV_QPT_RC, 0);
    struct ibv_send_wr *bad, *left, list[DEPTH];
    struct ibv_sge sge = piece(memory[0], BLOCK);
    struct ibv_send_wr notify = {.wr_id = 2, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    struct ibv_send_wr data = {.wr_id = 1, .next = &notify, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE};
    data.wr.rdma.remote_addr = (uintptr_t)memory[1];
    data.wr.rdma.rkey = mr->rkey;
    for (int round = 0; round < ROUNDS; round++) {
        fill(memory[0], round, BLOCK);
        for (int i = 0; i < 3; i++) {
            post_receive(two.qp[1], 3, memory[2], 8);
            check(ibv_post_send(two.qp[0], i == 0 ? &data : &notify, &bad), "ibv_post_send");
            next_of(two.cq[1], 3);
            next_of(two.cq[0], 2);
        }
        must(is_filled(memory[1], round, BLOCK), "bytes");
    }
    for (int i = 0; i < DEPTH; i++) {
        list[i] = (struct ibv_send_wr){.wr_id = i, .opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED};
        list[i].next = i + 1 < DEPTH ? &list[i + 1] : NULL;
    }
    int outstanding = 0;
    for (struct ibv_send_wr one = {.opcode = IBV_WR_RDMA_WRITE, .send_flags = IBV_SEND_SIGNALED};
         ibv_post_send(two.qp[0], &one, &bad) == 0; outstanding++)
        ;
    for (left = list; left; outstanding--) {
        next(two.cq[0]);
        const int error = ibv_post_send(two.qp[0], left, &bad);
        for (const struct ibv_send_wr *end = error ? bad : NULL; left != end; left = left->next)
            outstanding++;
    }
    while (outstanding-- > 0)
        next(two.cq[0]);
    close_two(&two);
}

/* The bytes of an inline send may change when the post returns. */
static void inline_sends(void)
{
    struct two two = open_two(IBV_QPT_RC, 0);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < 4; i++)
            post_receive(two.qp[1], i, memory[i], 16);
        for (int i = 0; i < 4; i++) {
            uint8_t text[16];
            fill(text, round + i, sizeof text);
            struct ibv_sge sge = {.addr = (uintptr_t)text, .length = sizeof text};
            post(two.qp[0], (struct ibv_send_wr){.wr_id = i,
                                                 .sg_list = &sge,
                                                 .num_sge = 1,
                                                 .opcode = IBV_WR_SEND,
                                                 .send_flags = IBV_SEND_INLINE | IBV_SEND_SIGNALED});
            fill(text, 0xff, sizeof text);
        }
        for (int i = 0; i < 4; i++) {
            next_of(two.cq[1], i);
            next_of(two.cq[0], i);
            must(is_filled(memory[i], round + i, 16), "bytes");
        }
    }
    close_two(&two);
}

/* Batches of ibv_wr_*: a WRITE and a SEND that tells of it, and one that is given up. */
static void batches(void)
{
    struct two two = open_two(IBV_QPT_RC, IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_SEND);
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(two.qp[0]);
    for (int round = 0; round < ROUNDS; round++) {
        post_receive(two.qp[1], 5, memory[2], 8);
        fill(memory[0], round, BLOCK);
        ibv_wr_start(qp);
        qp->wr_id = 1;
        qp->wr_flags = 0;
        ibv_wr_rdma_write(qp, mr->rkey, (uintptr_t)memory[1]);
        ibv_wr_set_sge(qp, mr->lkey, (uintptr_t)memory[0], BLOCK);
        qp->wr_id = 2;
        qp->wr_flags = IBV_SEND_SIGNALED;
        ibv_wr_send(qp);
        ibv_wr_set_inline_data(qp, &round, sizeof round);
        check(ibv_wr_complete(qp), "ibv_wr_complete");
        next_of(two.cq[1], 5);
        must(is_filled(memory[1], round, BLOCK), "bytes");
        next_of(two.cq[0], 2);
        ibv_wr_start(qp);
        ibv_wr_abort(qp);
    }
    close_two(&two);
}

/* ---- READs and atomics ---- */

/* As many READs as may be outstanding, each into its block; a fenced SEND of what the last one brings. */
static void reads(void)
{
    struct two two = open_two(reliable(), 0);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < 4; i++) {
            fill(memory[8 + i], round + i, BLOCK);
            access_remote(two.qp[0], IBV_WR_RDMA_READ, i, memory[i], BLOCK, memory[8 + i], IBV_SEND_SIGNALED);
        }
        post_receive(two.qp[1], 9, memory[16], BLOCK);
        if (has_srd) /* it has no fences */
            for (int i = 0; i < 4; i++)
                next(two.cq[0]);
        send_piece(two.qp[0], 4, memory[3], BLOCK, (has_srd ? 0 : IBV_SEND_FENCE) | IBV_SEND_SIGNALED);
        for (int i = 0; i < (has_srd ? 1 : 5); i++)
            next(two.cq[0]);
        next_of(two.cq[1], 9);
        for (int i = 0; i < 4; i++)
            must(is_filled(memory[i], round + i, BLOCK), "bytes");
        must(is_filled(memory[16], round + 3, BLOCK), "fenced bytes");
    }
    close_two(&two);
}

/* A fetch-and-add and a fenced SEND of its result, in one list. */
static void fenced_add(void)
{
    struct two two = open_two(IBV_QPT_RC, 0);
    uint64_t *const counter = (void *)memory[8], *const received = (void *)memory[9];
    *counter = 100;
    for (int round = 0; round < 3 * ROUNDS; round++) {
        post_receive(two.qp[1], 3, received, 8);
        struct ibv_sge sge = piece(memory[0], 8);
        struct ibv_send_wr *bad, send = {.wr_id = 2, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
        send.send_flags = IBV_SEND_FENCE | IBV_SEND_SIGNALED;
        struct ibv_send_wr add = {.wr_id = 1, .next = &send, .sg_list = &sge, .num_sge = 1};
        add.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD;
        add.wr.atomic.remote_addr = (uintptr_t)counter;
        add.wr.atomic.compare_add = 1;
        add.wr.atomic.rkey = mr->rkey;
        check(ibv_post_send(two.qp[0], &add, &bad), "ibv_post_send");
        next_of(two.cq[0], 2);
        next_of(two.cq[1], 3);
        must(*received == 100 + (uint64_t)round, "counter");
    }
    close_two(&two);
}

/* A lock by compare-and-swap, which guards a number that its holder reads and writes remotely. */
static uint64_t *const lock = (void *)memory[32], *const guarded = (void *)memory[33], *const additions = (void *)memory[34];

struct adder {
    struct two two;
    int number;
};

static void *add_guarded(void *argument)
{
    struct adder *const adder = argument;
    struct two *const two = &adder->two;
    uint8_t (*const own)[BLOCK] = &memory[adder->number * 4];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t *const old = (void *)own[0], *const number = (void *)own[1];
        do {
            post_atomic(two->qp[0], IBV_WR_ATOMIC_CMP_AND_SWP, old, lock, 0, 1);
            next(two->cq[0]);
        } while (*old != 0);
        access_remote(two->qp[0], IBV_WR_RDMA_READ, 0, number, 8, guarded, IBV_SEND_SIGNALED);
        next(two->cq[0]);
        ++*number;
        access_remote(two->qp[0], IBV_WR_RDMA_WRITE, 0, number, 8, guarded, IBV_SEND_SIGNALED);
        next(two->cq[0]);
        post_atomic(two->qp[0], IBV_WR_ATOMIC_CMP_AND_SWP, old, lock, 1, 0);
        next(two->cq[0]);
        post_atomic(two->qp[0], IBV_WR_ATOMIC_FETCH_AND_ADD, own[2], additions, 2, 0);
        next(two->cq[0]);
    }
    return NULL;
}

static void atomics(void)
{
    struct adder one = {open_two(IBV_QPT_RC, 0), 0}, other = {open_two(IBV_QPT_RC, 0), 1};
    pthread_t thread;
    check(pthread_create(&thread, NULL, add_guarded, &other), "pthread_create");
    add_guarded(&one);
    check(pthread_join(thread, NULL), "pthread_join");
    must(*guarded == 2 * ROUNDS && *additions == 4 * ROUNDS, "sums");
    close_two(&one.two);
    close_two(&other.two);
}

/* ---- datagrams ---- */

/* The first byte of a datagram's payload: after the GRH, which EFA leaves out. */
static const uint8_t *payload(const uint8_t *received, const struct ibv_wc *wc, uint32_t length)
{
    return received + (wc->byte_len - length);
}

/* A server that answers the queue pair of each request. */
static void datagrams(void)
{
    enum { CLIENTS = 3, LENGTH = 64 };
    struct ibv_cq *sends = create_cq(DEPTH, NULL), *receives = create_cq(DEPTH, NULL), *client_cq[CLIENTS];
    struct ibv_qp *server = create_qp(IBV_QPT_UD, sends, receives, NULL, 0), *clients[CLIENTS];
    connect_to(server, 0, gid);
    for (int i = 0; i < CLIENTS; i++) {
        client_cq[i] = create_cq(2 * DEPTH, NULL);
        clients[i] = create_qp(IBV_QPT_UD, client_cq[i], client_cq[i], NULL, 0);
        connect_to(clients[i], server->qp_num, gid);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < CLIENTS; i++) {
            post_receive(server, i, memory[i], GRH_BYTES + LENGTH);
            post_receive(clients[i], 50, memory[8 + i], GRH_BYTES + LENGTH);
        }
        for (int i = 0; i < CLIENTS; i++) {
            fill(memory[16 + i], round + i, LENGTH);
            send_piece(clients[i], 60, memory[16 + i], LENGTH, IBV_SEND_SIGNALED);
        }
        for (int done = 0; done < CLIENTS; done++) {
            struct ibv_wc wc = next(receives);
            struct ibv_sge sge = piece(payload(memory[wc.wr_id], &wc, LENGTH), LENGTH);
            struct ibv_send_wr wr = {.wr_id = 60, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
            wr.send_flags = IBV_SEND_SIGNALED;
            if (!has_srd)
                wr.wr.ud.ah = need(ibv_create_ah_from_wc(pd, &wc, (void *)memory[wc.wr_id], 1), "ibv_create_ah_from_wc");
            wr.wr.ud.remote_qpn = wc.src_qp;
            post(server, wr);
            next_of(sends, 60);
            if (wr.wr.ud.ah)
                check(ibv_destroy_ah(wr.wr.ud.ah), "ibv_destroy_ah");
        }
        for (int i = 0; i < CLIENTS; i++)
            for (int done = 0; done < 2; done++) {
                const struct ibv_wc wc = next(client_cq[i]);
                must(wc.wr_id == 60 || is_filled(payload(memory[8 + i], &wc, LENGTH), round + i, LENGTH), "answer");
            }
    }
    destroy_qp(server);
    for (int i = 0; i < CLIENTS; i++) {
        destroy_qp(clients[i]);
        destroy_cq(client_cq[i]);
    }
    destroy_cq(sends);
    destroy_cq(receives);
}

/* Two members of a group. */
static void multicast(void)
{
    enum { LENGTH = 32 };
    union ibv_gid group = {.raw = {[10] = 0xff, [11] = 0xff, [12] = 239, [13] = 1, [14] = 2}};
    group.raw[15] = (uint8_t)getpid();
    struct two two = open_two(IBV_QPT_UD, 0);
    struct ibv_ah_attr address = {.is_global = 1, .port_num = 1, .grh = {.dgid = group, .sgid_index = gid_index}};
    address.grh.hop_limit = 1;
    struct ibv_ah *ah = need(ibv_create_ah(pd, &address), "ibv_create_ah");
    for (int i = 0; i < 2; i++)
        check(ibv_attach_mcast(two.qp[i], &group, 0), "ibv_attach_mcast");
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < 2; i++)
            post_receive(two.qp[i], i, memory[i], GRH_BYTES + LENGTH);
        fill(memory[8], round, LENGTH);
        struct ibv_sge sge = piece(memory[8], LENGTH);
        struct ibv_send_wr wr = {.wr_id = 60, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
        wr.send_flags = IBV_SEND_SIGNALED;
        wr.wr.ud.ah = ah;
        wr.wr.ud.remote_qpn = 0xffffff;
        post(two.qp[0], wr);
        for (int i = 0; i < 2; i++)
            for (int done = 0; done < (i == 0 ? 2 : 1); done++)
                next(two.cq[i]);
        for (int i = 0; i < 2; i++)
            must(is_filled(memory[i] + GRH_BYTES, round, LENGTH), "bytes");
    }
    for (int i = 0; i < 2; i++)
        check(ibv_detach_mcast(two.qp[i], &group, 0), "ibv_detach_mcast");
    destroy_qp(two.qp[0]);
    two.qp[0] = create_qp(IBV_QPT_UD, two.cq[0], two.cq[0], NULL, 0);
    check(ibv_destroy_ah(ah), "ibv_destroy_ah");
    close_two(&two);
}

/* UC: receives are posted before the peer sends; a WRITE with immediate data and a SEND. */
static void unreliable(void)
{
    struct two two = open_two(IBV_QPT_UC, 0);
    for (int round = 0; round < ROUNDS; round++) {
        post_receive(two.qp[1], 1, memory[0], BLOCK);
        post_receive(two.qp[1], 2, memory[1], BLOCK);
        fill(memory[8], round, BLOCK);
        struct ibv_sge sge = piece(memory[8], BLOCK);
        struct ibv_send_wr wr = {.wr_id = 5, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE_WITH_IMM};
        wr.imm_data = htonl((uint32_t)round);
        wr.wr.rdma.remote_addr = (uintptr_t)memory[16];
        wr.wr.rdma.rkey = mr->rkey;
        post(two.qp[0], wr);
        send_piece(two.qp[0], 6, memory[8], BLOCK, IBV_SEND_SIGNALED);
        const struct ibv_wc wc = next(two.cq[1]);
        must(wc.wr_id == 1 && ntohl(wc.imm_data) == (uint32_t)round, "immediate data");
        next_of(two.cq[1], 2);
        next_of(two.cq[0], 6);
        must(is_filled(memory[16], round, BLOCK) && is_filled(memory[1], round, BLOCK), "bytes");
    }
    close_two(&two);
}

/* ---- shared queues ---- */

/* A server with one receive queue for its clients, which refills it at the limit. */
static void shared_receives(void)
{
    enum { CLIENTS = 3, RECEIVES = 6, MESSAGES = 30 };
    struct ibv_srq_init_attr init = {.attr = {.max_wr = RECEIVES, .max_sge = 1}};
    struct ibv_srq *srq = need(ibv_create_srq(pd, &init), "ibv_create_srq");
    struct ibv_cq *cq = create_cq(RECEIVES + CLIENTS, NULL), *client_cq = create_cq(CLIENTS, NULL);
    struct ibv_qp *ends[CLIENTS], *clients[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        ends[i] = create_qp(IBV_QPT_RC, cq, cq, srq, 0);
        clients[i] = create_qp(IBV_QPT_RC, client_cq, client_cq, NULL, 0);
        connect_both(ends[i], clients[i]);
    }
    int free_blocks = RECEIVES, used[RECEIVES] = {0};
    for (int sent = 0, received = 0; received < MESSAGES;) {
        if (free_blocks > RECEIVES / 2)
            for (int i = 0; i < RECEIVES; i++)
                if (!used[i]) {
                    struct ibv_sge sge = piece(memory[i], BLOCK);
                    struct ibv_recv_wr *bad, wr = {.wr_id = i, .sg_list = &sge, .num_sge = 1};
                    check(ibv_post_srq_recv(srq, &wr, &bad), "ibv_post_srq_recv");
                    used[i] = 1;
                    free_blocks--;
                }
        int sent_now = 0;
        for (; sent_now < CLIENTS && sent_now < RECEIVES - free_blocks; sent_now++, sent++) {
            fill(memory[16 + sent_now], sent, BLOCK);
            send_piece(clients[sent_now], sent, memory[16 + sent_now], BLOCK, IBV_SEND_SIGNALED);
        }
        for (int i = 0; i < sent_now; i++)
            next(client_cq);
        for (int i = 0; i < sent_now; i++, received++) {
            const struct ibv_wc wc = next(cq);
            must(is_filled(memory[wc.wr_id], memory[wc.wr_id][0], BLOCK), "bytes");
            used[wc.wr_id] = 0;
            free_blocks++;
        }
    }
    for (int i = 0; i < CLIENTS; i++) {
        destroy_qp(clients[i]);
        destroy_qp(ends[i]);
    }
    check(ibv_destroy_srq(srq), "ibv_destroy_srq");
    destroy_cq(cq);
    destroy_cq(client_cq);
}

/* Two receive queues of one XRC domain, and one queue pair that reaches both. */
static void extended_connections(void)
{
    struct ibv_xrcd_init_attr domain = {
        .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = -1, .oflags = O_CREAT};
    struct ibv_xrcd *xrcd = need(ibv_open_xrcd(context, &domain), "ibv_open_xrcd");
    struct ibv_cq *cq = create_cq(2 * DEPTH, NULL), *send_cq = create_cq(DEPTH, NULL);
    struct ibv_srq *queues[2];
    for (int i = 0; i < 2; i++) {
        struct ibv_srq_init_attr_ex init = {.attr = {.max_wr = DEPTH, .max_sge = 1},
                                            .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_XRCD |
                                                         IBV_SRQ_INIT_ATTR_CQ | IBV_SRQ_INIT_ATTR_PD,
                                            .srq_type = IBV_SRQT_XRC,
                                            .pd = pd,
                                            .xrcd = xrcd,
                                            .cq = cq};
        queues[i] = need(ibv_create_srq_ex(context, &init), "ibv_create_srq_ex");
    }
    struct ibv_qp_init_attr_ex receiver = {
        .qp_type = IBV_QPT_XRC_RECV, .comp_mask = IBV_QP_INIT_ATTR_XRCD, .xrcd = xrcd};
    struct ibv_qp_init_attr_ex sender = {.qp_type = IBV_QPT_XRC_SEND,
                                         .send_cq = send_cq,
                                         .cap = {.max_send_wr = DEPTH, .max_send_sge = 1},
                                         .comp_mask = IBV_QP_INIT_ATTR_PD,
                                         .pd = pd};
    struct ibv_qp *to = need(ibv_create_qp_ex(context, &receiver), "ibv_create_qp_ex");
    struct ibv_qp *from = need(ibv_create_qp_ex(context, &sender), "ibv_create_qp_ex");
    connect_both(from, to);
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < 2; i++) {
            uint32_t number;
            check(ibv_get_srq_num(queues[i], &number), "ibv_get_srq_num");
            struct ibv_sge into = piece(memory[i], BLOCK), sge = piece(memory[8], BLOCK);
            struct ibv_recv_wr *bad_receive, receive = {.wr_id = i, .sg_list = &into, .num_sge = 1};
            check(ibv_post_srq_recv(queues[i], &receive, &bad_receive), "ibv_post_srq_recv");
            fill(memory[8], round, BLOCK);
            struct ibv_send_wr wr = {.wr_id = 5, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
            wr.send_flags = IBV_SEND_SIGNALED;
            wr.qp_type.xrc.remote_srqn = number;
            post(from, wr);
            next_of(cq, i);
            next_of(send_cq, 5);
            must(is_filled(memory[i], round, BLOCK), "bytes");
        }
    destroy_qp(from);
    destroy_qp(to);
    for (int i = 0; i < 2; i++)
        check(ibv_destroy_srq(queues[i]), "ibv_destroy_srq");
    destroy_cq(cq);
    destroy_cq(send_cq);
    check(ibv_close_xrcd(xrcd), "ibv_close_xrcd");
}

/* ---- memory ---- */

/* The peer's WRITE through a window of type 2, which a SEND tells it; then it is invalidated. One of type 1 the same.
 * */
static void windows(void)
{
    struct two two = open_two(IBV_QPT_RC, 0);
    struct ibv_mr *bound = need(ibv_reg_mr(pd, memory, sizeof memory, RIGHTS | IBV_ACCESS_MW_BIND), "ibv_reg_mr");
    struct ibv_mw *second = need(ibv_alloc_mw(pd, IBV_MW_TYPE_2), "ibv_alloc_mw");
    struct ibv_mw *first = need(ibv_alloc_mw(pd, IBV_MW_TYPE_1), "ibv_alloc_mw");
    for (int round = 0; round < ROUNDS; round++) {
        const struct ibv_mw_bind_info info = {
            .mr = bound, .addr = (uintptr_t)memory[4], .length = BLOCK, .mw_access_flags = IBV_ACCESS_REMOTE_WRITE};
        const bool is_second = round % 2 == 0;
        uint32_t rkey = 0;
        if (is_second) {
            rkey = ibv_inc_rkey(second->rkey);
            post(two.qp[0], (struct ibv_send_wr){.wr_id = 1,
                                                 .opcode = IBV_WR_BIND_MW,
                                                 .send_flags = IBV_SEND_SIGNALED,
                                                 .bind_mw = {.mw = second, .rkey = rkey, .bind_info = info}});
            second->rkey = rkey;
        } else {
            struct ibv_mw_bind bind = {.wr_id = 1, .send_flags = IBV_SEND_SIGNALED, .bind_info = info};
            check(ibv_bind_mw(two.qp[0], first, &bind), "ibv_bind_mw");
            rkey = first->rkey;
        }
        next_of(two.cq[0], 1);
        fill(memory[0], round, BLOCK);
        struct ibv_sge sge = piece(memory[0], BLOCK);
        struct ibv_send_wr wr = {.wr_id = 2, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_RDMA_WRITE};
        wr.send_flags = IBV_SEND_SIGNALED;
        wr.wr.rdma.remote_addr = (uintptr_t)memory[4];
        wr.wr.rdma.rkey = rkey;
        post(two.qp[1], wr);
        next_of(two.cq[1], 2);
        must(is_filled(memory[4], round, BLOCK), "bytes");
        if (is_second) {
            post(two.qp[0], (struct ibv_send_wr){.wr_id = 3,
                                                 .opcode = IBV_WR_LOCAL_INV,
                                                 .send_flags = IBV_SEND_SIGNALED,
                                                 .invalidate_rkey = rkey});
            next_of(two.cq[0], 3);
        }
    }
    destroy_qp(two.qp[0]);
    two.qp[0] = create_qp(IBV_QPT_RC, two.cq[0], two.cq[0], NULL, 0);
    check(ibv_dealloc_mw(first), "ibv_dealloc_mw");
    check(ibv_dealloc_mw(second), "ibv_dealloc_mw");
    check(ibv_dereg_mr(bound), "ibv_dereg_mr");
    close_two(&two);
}

/* Each round registers a block of malloc, uses it, deregisters and frees it; and makes the queue pairs anew. */
static void renewal(void)
{
    struct two two = open_two(reliable(), 0);
    for (int round = 0; round < ROUNDS; round++) {
        char *block = need(malloc(8192), "malloc");
        struct ibv_mr *region = need(ibv_reg_mr(pd, block, 8192, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
        post_receive(two.qp[1], 2, memory[0], BLOCK);
        fill(block, round, BLOCK);
        struct ibv_sge sge = {.addr = (uintptr_t)block, .length = BLOCK, .lkey = region->lkey};
        post(two.qp[0], (struct ibv_send_wr){.wr_id = 1,
                                             .sg_list = &sge,
                                             .num_sge = 1,
                                             .opcode = IBV_WR_SEND,
                                             .send_flags = IBV_SEND_SIGNALED});
        next_of(two.cq[0], 1);
        next_of(two.cq[1], 2);
        must(is_filled(memory[0], round, BLOCK), "bytes");
        check(ibv_dereg_mr(region), "ibv_dereg_mr");
        free(block);
        for (int i = 0; i < 2; i++) {
            destroy_qp(two.qp[i]);
            two.qp[i] = create_qp(reliable(), two.cq[i], two.cq[i], NULL, 0);
        }
        connect_both(two.qp[0], two.qp[1]);
    }
    close_two(&two);
}

/* Receives that will not be used are flushed, and polled, before their memory is given up. */
static void tear_down(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        struct two two = open_two(reliable(), 0);
        char *block = need(malloc(4096), "malloc");
        struct ibv_mr *region = need(ibv_reg_mr(pd, block, 4096, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
        for (int i = 0; i < 4; i++) {
            struct ibv_sge sge = {.addr = (uintptr_t)block + 512 * (unsigned)i, .length = 512, .lkey = region->lkey};
            struct ibv_recv_wr *bad, wr = {.wr_id = i, .sg_list = &sge, .num_sge = 1};
            check(ibv_post_recv(two.qp[0], &wr, &bad), "ibv_post_recv");
        }
        struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
        check(ibv_modify_qp(two.qp[0], &attr, IBV_QP_STATE), "ibv_modify_qp to ERR");
        for (int i = 0; i < 4;) {
            struct ibv_wc wc;
            const int found = ibv_poll_cq(two.cq[0], 1, &wc);
            must(found >= 0 && (found == 0 || (wc.status == IBV_WC_WR_FLUSH_ERR && wc.wr_id == (unsigned)i)), "flush");
            i += found;
        }
        check(ibv_dereg_mr(region), "ibv_dereg_mr");
        free(block);
        close_two(&two);
    }
}

/* ---- waits ---- */

/* Waits for events, arms again before each poll, and acknowledges all events before the end. */
static void events(void)
{
    struct ibv_comp_channel *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    struct ibv_cq *cq = create_cq(2 * DEPTH, channel), *other_cq = create_cq(2 * DEPTH, NULL);
    struct ibv_qp *qp = create_qp(reliable(), cq, cq, NULL, 0), *peer = create_qp(reliable(), other_cq, other_cq, NULL, 0);
    connect_both(qp, peer);
    unsigned unacknowledged = 0;
    check(ibv_req_notify_cq(cq, 0), "ibv_req_notify_cq");
    for (int round = 0; round < ROUNDS; round++) {
        post_receive(qp, 2, memory[0], BLOCK);
        fill(memory[1], round, BLOCK);
        send_piece(peer, 1, memory[1], BLOCK, IBV_SEND_SIGNALED);
        for (bool has_received = false; !has_received;) {
            struct pollfd ready = {.fd = channel->fd, .events = POLLIN};
            must(poll(&ready, 1, 20000) == 1, "no event within 20 s");
            struct ibv_cq *ready_cq;
            void *user;
            check(ibv_get_cq_event(channel, &ready_cq, &user), "ibv_get_cq_event");
            unacknowledged++;
            check(ibv_req_notify_cq(cq, 0), "ibv_req_notify_cq");
            struct ibv_wc wc;
            while (ibv_poll_cq(cq, 1, &wc) > 0) {
                must(wc.status == IBV_WC_SUCCESS && wc.wr_id == 2, "completion");
                has_received = true;
            }
        }
        must(is_filled(memory[0], round, BLOCK), "bytes");
        next_of(other_cq, 1);
    }
    ibv_ack_cq_events(cq, unacknowledged);
    destroy_qp(qp);
    destroy_qp(peer);
    destroy_cq(cq);
    destroy_cq(other_cq);
    check(ibv_destroy_comp_channel(channel), "ibv_destroy_comp_channel");
}

/* Polls of an extended CQ, which read only the fields that were asked for. */
static void extended_polls(void)
{
    /* The ibv_end_poll of rdma-core 44's rxe skips a completion after an ibv_next_poll that has found none. */
    const bool has_wrong_next = strncmp(ibv_get_device_name(context->device), "rxe", 3) == 0;
    struct ibv_cq_init_attr_ex init = {.cqe = 2 * DEPTH, .wc_flags = IBV_WC_EX_WITH_BYTE_LEN | IBV_WC_EX_WITH_QP_NUM};
    struct efadv_cq_init_attr own = {0};
    struct ibv_cq_ex *cq =
        need(has_srd ? efadv_create_cq(context, &init, &own, sizeof own) : ibv_create_cq_ex(context, &init),
             "ibv_create_cq_ex");
    struct ibv_cq *const plain = ibv_cq_ex_to_cq(cq), *other_cq = create_cq(2 * DEPTH, NULL);
    struct ibv_qp *qp = create_qp(reliable(), plain, plain, NULL, 0),
                  *peer = create_qp(reliable(), other_cq, other_cq, NULL, 0);
    connect_both(qp, peer);
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < 4; i++)
            post_receive(qp, i, memory[i], BLOCK);
        for (int i = 0; i < 4; i++) {
            fill(memory[8 + i], round + i, BLOCK);
            send_piece(peer, i, memory[8 + i], BLOCK - i, IBV_SEND_SIGNALED);
        }
        for (int received = 0; received < 4;) {
            struct ibv_poll_cq_attr attr = {0};
            const int started = ibv_start_poll(cq, &attr);
            if (started == ENOENT) {
                sched_yield();
                continue;
            }
            check(started, "ibv_start_poll");
            do {
                must(cq->status == IBV_WC_SUCCESS, ibv_wc_status_str(cq->status));
                must(ibv_wc_read_qp_num(cq) == qp->qp_num, "number of the queue pair");
                must(ibv_wc_read_byte_len(cq) > BLOCK - 4, "length");
                received++;
            } while (received < 4 && !has_wrong_next && ibv_next_poll(cq) == 0);
            ibv_end_poll(cq);
        }
        for (int i = 0; i < 4; i++)
            next(other_cq);
    }
    destroy_qp(qp);
    destroy_qp(peer);
    destroy_cq(plain);
    destroy_cq(other_cq);
}

/* Threads with a connection each, whose completions one thread polls from a CQ of all. */
enum { THREADS = 3 };
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int done_of[THREADS], threads_left = THREADS;
static struct ibv_cq *common;
static struct ibv_qp *thread_qps[THREADS][2];

static void *talk(void *argument)
{
    const int self = (int)(uintptr_t)argument;
    for (int round = 0; round < ROUNDS; round++) {
        post_receive(thread_qps[self][1], self, memory[8 * self], BLOCK);
        fill(memory[8 * self + 1], round + self, BLOCK);
        send_piece(thread_qps[self][0], self, memory[8 * self + 1], BLOCK, IBV_SEND_SIGNALED);
        pthread_mutex_lock(&mutex);
        while (done_of[self] < 2 * (round + 1))
            pthread_cond_wait(&changed, &mutex);
        pthread_mutex_unlock(&mutex);
        must(is_filled(memory[8 * self], round + self, BLOCK), "bytes");
    }
    pthread_mutex_lock(&mutex);
    threads_left--;
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static void threads(void)
{
    common = create_cq(2 * THREADS, NULL);
    pthread_t running[THREADS];
    for (int i = 0; i < THREADS; i++) {
        for (int end = 0; end < 2; end++)
            thread_qps[i][end] = create_qp(reliable(), common, common, NULL, 0);
        connect_both(thread_qps[i][0], thread_qps[i][1]);
        check(pthread_create(&running[i], NULL, talk, (void *)(uintptr_t)i), "pthread_create");
    }
    for (int left = THREADS; left > 0;) {
        struct ibv_wc wc[4];
        const int found = ibv_poll_cq(common, 4, wc);
        must(found >= 0, "ibv_poll_cq");
        pthread_mutex_lock(&mutex);
        for (int i = 0; i < found; i++) {
            must(wc[i].status == IBV_WC_SUCCESS, ibv_wc_status_str(wc[i].status));
            done_of[wc[i].wr_id]++;
        }
        if (found > 0)
            pthread_cond_broadcast(&changed);
        left = threads_left;
        pthread_mutex_unlock(&mutex);
        sched_yield();
    }
    for (int i = 0; i < THREADS; i++) {
        check(pthread_join(running[i], NULL), "pthread_join");
        destroy_qp(thread_qps[i][0]);
        destroy_qp(thread_qps[i][1]);
    }
    destroy_cq(common);
}

/* A thread on a stack of the program, which keeps the memory when the thread has ended. */
enum { STACK_BYTES = 1 << 20 };
static uint8_t *own_stack;

static void *register_stack(void *unused)
{
    (void)unused;
    return need(ibv_reg_mr(pd, own_stack, 2 * BLOCK, rights()), "ibv_reg_mr");
}

static void own_stacks(void)
{
    struct two two = open_two(reliable(), 0);
    struct ibv_mr *const memory_mr = mr;
    pthread_attr_t attributes;
    pthread_t thread;
    void *result;
    must(posix_memalign((void **)&own_stack, 4096, STACK_BYTES) == 0, "posix_memalign");
    check(pthread_attr_init(&attributes), "pthread_attr_init");
    check(pthread_attr_setstack(&attributes, own_stack, STACK_BYTES), "pthread_attr_setstack");
    check(pthread_create(&thread, &attributes, register_stack, NULL), "pthread_create");
    check(pthread_join(thread, &result), "pthread_join");
    pthread_attr_destroy(&attributes);
    mr = result;
    for (int round = 0; round < ROUNDS; round++) {
        post_receive(two.qp[1], round, own_stack, BLOCK);
        fill(own_stack + BLOCK, round, BLOCK);
        send_piece(two.qp[0], round, own_stack + BLOCK, BLOCK, IBV_SEND_SIGNALED);
        next_of(two.cq[0], round);
        next_of(two.cq[1], round);
        must(is_filled(own_stack, round, BLOCK), "bytes");
    }
    check(ibv_dereg_mr(mr), "ibv_dereg_mr");
    mr = memory_mr;
    free(own_stack);
    close_two(&two);
}

/* ---- processes ---- */

struct address {
    uint32_t number, rkey;
    uint64_t memory;
    union ibv_gid gid;
};

static void exchange(int fd, const void *own, void *other, size_t length)
{
    must(write(fd, own, length) == (ssize_t)length && read(fd, other, length) == (ssize_t)length, "exchange");
}

/* Each process writes into the other's memory, with immediate data: on SRD, it sends. */
static void neighbour(int fd, int self)
{
    open_all();
    struct ibv_cq *cq = create_cq(2 * DEPTH, NULL);
    struct ibv_qp *qp = create_qp(reliable(), cq, cq, NULL, 0);
    const struct address own = {.number = qp->qp_num, .rkey = mr->rkey, .memory = (uintptr_t)memory[0], .gid = gid};
    struct address other;
    exchange(fd, &own, &other, sizeof own);
    connect_to(qp, other.number, other.gid);
    for (int round = 0; round < ROUNDS; round++) {
        char byte = 0;
        post_receive(qp, 2, memory[0], has_srd ? BLOCK : 0);
        exchange(fd, &byte, &byte, 1);
        fill(memory[1], round + self, BLOCK);
        struct ibv_sge sge = piece(memory[1], BLOCK);
        struct ibv_send_wr wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .send_flags = IBV_SEND_SIGNALED};
        wr.opcode = has_srd ? IBV_WR_SEND : IBV_WR_RDMA_WRITE_WITH_IMM;
        wr.wr.rdma.remote_addr = other.memory;
        wr.wr.rdma.rkey = other.rkey;
        post(qp, wr);
        next(cq);
        next(cq);
        must(is_filled(memory[0], round + !self, BLOCK), "bytes");
    }
    char byte = 0;
    exchange(fd, &byte, &byte, 1);
    destroy_qp(qp);
    destroy_cq(cq);
    close_all();
}

static void processes(void)
{
    int fds[2];
    check(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), "socketpair");
    const pid_t child = fork();
    neighbour(fds[child == 0], child == 0);
    if (child == 0)
        _exit(0);
    int status;
    must(waitpid(child, &status, 0) == child && status == 0, "the child's end");
}

/* ---- rdma_cm ---- */

static struct rdma_cm_id *event_of(struct rdma_event_channel *channel, enum rdma_cm_event_type expected)
{
    struct rdma_cm_event *event;
    check(rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
    if (event->event != expected) {
        fprintf(stderr, "%s instead of %s\n", rdma_event_str(event->event), rdma_event_str(expected));
        exit(1);
    }
    struct rdma_cm_id *id = event->id;
    check(rdma_ack_cm_event(event), "rdma_ack_cm_event");
    return id;
}

static struct ibv_cq *cm_queue_pair(struct rdma_cm_id *id, struct ibv_pd *domain)
{
    struct ibv_cq *cq = need(ibv_create_cq(id->verbs, 2 * DEPTH, NULL, NULL, 0), "ibv_create_cq");
    struct ibv_qp_init_attr init = {.qp_type = IBV_QPT_RC, .send_cq = cq, .recv_cq = cq, .cap = capacity()};
    check(rdma_create_qp(id, domain, &init), "rdma_create_qp");
    return cq;
}

struct cm_client {
    struct sockaddr_in address;
    int value;
};

static void *cm_client(void *argument)
{
    struct cm_client *const client = argument;
    char *block = need(malloc(BLOCK), "malloc");
    struct rdma_event_channel *channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *id;
    check(rdma_create_id(channel, &id, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_resolve_addr(id, NULL, (struct sockaddr *)&client->address, 2000), "rdma_resolve_addr");
    event_of(channel, RDMA_CM_EVENT_ADDR_RESOLVED);
    check(rdma_resolve_route(id, 2000), "rdma_resolve_route");
    event_of(channel, RDMA_CM_EVENT_ROUTE_RESOLVED);
    struct ibv_cq *cq = cm_queue_pair(id, NULL); /* librdmacm has a domain of its own */
    struct ibv_mr *region = need(ibv_reg_mr(id->pd, block, BLOCK, IBV_ACCESS_LOCAL_WRITE), "ibv_reg_mr");
    struct ibv_sge sge = {.addr = (uintptr_t)block, .length = BLOCK, .lkey = region->lkey};
    struct ibv_recv_wr *bad_receive, receive = {.wr_id = 2, .sg_list = &sge, .num_sge = 1};
    check(ibv_post_recv(id->qp, &receive, &bad_receive), "ibv_post_recv");
    struct rdma_conn_param parameters = {
        .private_data = &client->value, .private_data_len = sizeof client->value, .retry_count = 7, .rnr_retry_count = 7};
    check(rdma_connect(id, &parameters), "rdma_connect");
    event_of(channel, RDMA_CM_EVENT_ESTABLISHED);
    next_of(cq, 2);
    must(is_filled(block, client->value, BLOCK), "bytes");
    check(rdma_disconnect(id), "rdma_disconnect");
    event_of(channel, RDMA_CM_EVENT_DISCONNECTED);
    rdma_destroy_qp(id);
    destroy_cq(cq);
    check(ibv_dereg_mr(region), "ibv_dereg_mr");
    check(rdma_destroy_id(id), "rdma_destroy_id");
    rdma_destroy_event_channel(channel);
    free(block);
    return NULL;
}

/* A server of several clients at the same time; what belongs to a connection is in the identifier's context. */
struct cm_connection {
    struct ibv_pd *domain;
    struct ibv_mr *region;
    struct ibv_cq *cq;
    int value;
    char block[BLOCK];
};

static void cm_accept(struct rdma_cm_id *id, int value)
{
    struct cm_connection *const connection = need(calloc(1, sizeof *connection), "calloc");
    id->context = connection;
    connection->value = value;
    connection->domain = need(ibv_alloc_pd(id->verbs), "ibv_alloc_pd");
    connection->region = need(ibv_reg_mr(connection->domain, connection->block, BLOCK, 0), "ibv_reg_mr");
    connection->cq = cm_queue_pair(id, connection->domain);
    struct rdma_conn_param parameters = {.rnr_retry_count = 7};
    check(rdma_accept(id, &parameters), "rdma_accept");
}

static void cm_answer(struct rdma_cm_id *id)
{
    struct cm_connection *const connection = id->context;
    fill(connection->block, connection->value, BLOCK);
    struct ibv_sge sge = {.addr = (uintptr_t)connection->block, .length = BLOCK, .lkey = connection->region->lkey};
    struct ibv_send_wr *bad, wr = {.wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    wr.send_flags = IBV_SEND_SIGNALED;
    check(ibv_post_send(id->qp, &wr, &bad), "ibv_post_send");
}

static void cm_end(struct rdma_cm_id *id)
{
    struct cm_connection *const connection = id->context;
    next_of(connection->cq, 1);
    rdma_destroy_qp(id);
    destroy_cq(connection->cq);
    check(ibv_dereg_mr(connection->region), "ibv_dereg_mr");
    check(ibv_dealloc_pd(connection->domain), "ibv_dealloc_pd");
    free(connection);
    check(rdma_destroy_id(id), "rdma_destroy_id");
}

static void cm_server(void)
{
    enum { CLIENTS = 3 };
    struct rdma_event_channel *channel = need(rdma_create_event_channel(), "rdma_create_event_channel");
    struct rdma_cm_id *listener;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    check(rdma_create_id(channel, &listener, NULL, RDMA_PS_TCP), "rdma_create_id");
    check(rdma_bind_addr(listener, (struct sockaddr *)&address), "rdma_bind_addr");
    check(rdma_listen(listener, CLIENTS), "rdma_listen");
    address.sin_port = rdma_get_src_port(listener);
    pthread_t clients[CLIENTS];
    struct cm_client arguments[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        arguments[i] = (struct cm_client){.address = address, .value = 7 + i};
        check(pthread_create(&clients[i], NULL, cm_client, &arguments[i]), "pthread_create");
    }
    for (int ended = 0; ended < CLIENTS;) {
        struct rdma_cm_event *event;
        check(rdma_get_cm_event(channel, &event), "rdma_get_cm_event");
        struct rdma_cm_id *const id = event->id;
        const enum rdma_cm_event_type type = event->event;
        int value = 0;
        if (type == RDMA_CM_EVENT_CONNECT_REQUEST)
            memcpy(&value, event->param.conn.private_data, sizeof value);
        check(rdma_ack_cm_event(event), "rdma_ack_cm_event");
        if (type == RDMA_CM_EVENT_CONNECT_REQUEST)
            cm_accept(id, value);
        else if (type == RDMA_CM_EVENT_ESTABLISHED)
            cm_answer(id);
        else if (type == RDMA_CM_EVENT_DISCONNECTED) {
            check(rdma_disconnect(id), "rdma_disconnect");
            cm_end(id);
            ended++;
        } else {
            fprintf(stderr, "%s\n", rdma_event_str(type));
            exit(1);
        }
    }
    for (int i = 0; i < CLIENTS; i++)
        check(pthread_join(clients[i], NULL), "pthread_join");
    check(rdma_destroy_id(listener), "rdma_destroy_id");
    rdma_destroy_event_channel(channel);
}

/* ---- rsockets ---- */

enum { STREAM_BYTES = 30000 };

static void stream(int fd, bool sends, uint8_t *bytes)
{
    for (size_t done = 0; done < STREAM_BYTES;) {
        const ssize_t moved = sends ? rsend(fd, bytes + done, STREAM_BYTES - done, 0)
                                    : rrecv(fd, bytes + done, STREAM_BYTES - done, 0);
        check(moved > 0 ? 0 : -1, sends ? "rsend" : "rrecv");
        done += (size_t)moved;
    }
}

/* An rsocket that asks the device for little inline data: rsockets do not ask how much it has. */
static int open_stream(void)
{
    const int fd = rsocket(AF_INET, SOCK_STREAM, 0), inline_bytes = 16;
    check(fd < 0 ? -1 : 0, "rsocket");
    check(rsetsockopt(fd, SOL_RDMA, RDMA_INLINE, &inline_bytes, sizeof inline_bytes), "rsetsockopt");
    return fd;
}

static void *stream_client(void *argument)
{
    static uint8_t bytes[STREAM_BYTES];
    const int fd = open_stream();
    check(rconnect(fd, argument, sizeof(struct sockaddr_in)), "rconnect");
    fill(bytes, 9, sizeof bytes);
    stream(fd, true, bytes);
    stream(fd, false, bytes);
    must(is_filled(bytes, 10, sizeof bytes), "bytes");
    check(rshutdown(fd, SHUT_RDWR), "rshutdown");
    check(rclose(fd), "rclose");
    return NULL;
}

static void streams(void)
{
    static uint8_t bytes[STREAM_BYTES];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    const int listener = open_stream();
    check(rbind(listener, (struct sockaddr *)&address, length), "rbind");
    check(rlisten(listener, 1), "rlisten");
    check(rgetsockname(listener, (struct sockaddr *)&address, &length), "rgetsockname");
    pthread_t client;
    check(pthread_create(&client, NULL, stream_client, &address), "pthread_create");
    const int fd = raccept(listener, NULL, NULL);
    check(fd < 0 ? -1 : 0, "raccept");
    stream(fd, false, bytes);
    must(is_filled(bytes, 9, sizeof bytes), "bytes");
    fill(bytes, 10, sizeof bytes);
    stream(fd, true, bytes);
    check(rshutdown(fd, SHUT_RDWR), "rshutdown");
    check(rclose(fd), "rclose");
    check(rclose(listener), "rclose");
    check(pthread_join(client, NULL), "pthread_join");
}

/* ---- DC ---- */

static struct ibv_qp *dynamic_qp(enum mlx5dv_dc_type type, struct ibv_cq *cq, struct ibv_srq *srq)
{
    const bool is_target = type == MLX5DV_DCTYPE_DCT;
    struct ibv_qp_init_attr_ex init = {
        .qp_type = IBV_QPT_DRIVER, .send_cq = cq, .recv_cq = cq, .srq = srq, .comp_mask = IBV_QP_INIT_ATTR_PD, .pd = pd};
    if (!is_target) {
        init.cap = (struct ibv_qp_cap){.max_send_wr = DEPTH, .max_send_sge = 1};
        init.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
        init.send_ops_flags = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_SEND;
    }
    struct mlx5dv_qp_init_attr own = {.comp_mask = MLX5DV_QP_INIT_ATTR_MASK_DC,
                                      .dc_init_attr = {.dc_type = type, .dct_access_key = is_target ? 5 : 0}};
    struct ibv_qp *qp = need(mlx5dv_create_qp(context, &init, &own), "mlx5dv_create_qp");
    struct ibv_qp_attr attr = {.port_num = 1,
                               .qp_access_flags = IBV_ACCESS_REMOTE_WRITE,
                               .path_mtu = IBV_MTU_1024,
                               .min_rnr_timer = 1,
                               .timeout = 14,
                               .retry_cnt = 7,
                               .rnr_retry = 7,
                               .ah_attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = gid, .hop_limit = 1}}};
    attr.ah_attr.grh.sgid_index = gid_index;
    modify(qp, &attr, IBV_QPS_INIT, IBV_QP_PKEY_INDEX | IBV_QP_PORT | (is_target ? IBV_QP_ACCESS_FLAGS : 0));
    modify(qp, &attr, IBV_QPS_RTR, IBV_QP_AV | IBV_QP_PATH_MTU | (is_target ? IBV_QP_MIN_RNR_TIMER : 0));
    if (!is_target)
        modify(qp, &attr, IBV_QPS_RTS, IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                                           IBV_QP_MAX_QP_RD_ATOMIC);
    return qp;
}

/* One initiator, and two targets with one receive queue. */
static void dynamic(void)
{
    struct ibv_srq_init_attr init = {.attr = {.max_wr = DEPTH, .max_sge = 1}};
    struct ibv_srq *srq = need(ibv_create_srq(pd, &init), "ibv_create_srq");
    struct ibv_cq *cq = create_cq(2 * DEPTH, NULL), *target_cq = create_cq(2 * DEPTH, NULL);
    struct ibv_qp *targets[2];
    for (int i = 0; i < 2; i++)
        targets[i] = dynamic_qp(MLX5DV_DCTYPE_DCT, target_cq, srq);
    struct ibv_qp *initiator = dynamic_qp(MLX5DV_DCTYPE_DCI, cq, NULL);
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(initiator);
    struct mlx5dv_qp_ex *own = mlx5dv_qp_ex_from_ibv_qp_ex(qp);
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < 2; i++) {
            struct ibv_sge into = piece(memory[i], BLOCK);
            struct ibv_recv_wr *bad, receive = {.wr_id = 4, .sg_list = &into, .num_sge = 1};
            check(ibv_post_srq_recv(srq, &receive, &bad), "ibv_post_srq_recv");
            fill(memory[8], round + i, BLOCK);
            ibv_wr_start(qp);
            qp->wr_id = 1;
            qp->wr_flags = 0;
            ibv_wr_rdma_write(qp, mr->rkey, (uintptr_t)memory[16]);
            ibv_wr_set_sge(qp, mr->lkey, (uintptr_t)memory[8], BLOCK);
            mlx5dv_wr_set_dc_addr(own, own_address, targets[i]->qp_num, 5);
            qp->wr_id = 2;
            qp->wr_flags = IBV_SEND_SIGNALED;
            ibv_wr_send(qp);
            ibv_wr_set_sge(qp, mr->lkey, (uintptr_t)memory[8], BLOCK);
            mlx5dv_wr_set_dc_addr(own, own_address, targets[i]->qp_num, 5);
            check(ibv_wr_complete(qp), "ibv_wr_complete");
            next_of(target_cq, 4);
            next_of(cq, 2);
            must(is_filled(memory[i], round + i, BLOCK) && is_filled(memory[16], round + i, BLOCK), "bytes");
        }
    destroy_qp(initiator);
    for (int i = 0; i < 2; i++)
        destroy_qp(targets[i]);
    check(ibv_destroy_srq(srq), "ibv_destroy_srq");
    destroy_cq(cq);
    destroy_cq(target_cq);
}

/* ---- habits of services ---- */

/* Requests in rings that stay linked: the last one of a batch ends the list, and is linked again after the post. */
static void rings(void)
{
    enum { RING = 8, BATCH = 3 };
    struct two two = open_two(IBV_QPT_RC, 0);
    struct ibv_sge from[RING], to[RING];
    struct ibv_send_wr sends[RING] = {0}, *bad;
    struct ibv_recv_wr receives[RING] = {0}, *bad_receive;
    for (int i = 0; i < RING; i++) {
        from[i] = piece(memory[i], BLOCK);
        to[i] = piece(memory[RING + i], BLOCK);
        sends[i] = (struct ibv_send_wr){.wr_id = (uint64_t)i,
                                        .next = &sends[(i + 1) % RING],
                                        .sg_list = &from[i],
                                        .num_sge = 1,
                                        .opcode = IBV_WR_SEND,
                                        .send_flags = IBV_SEND_SIGNALED};
        receives[i] = (struct ibv_recv_wr){
            .wr_id = (uint64_t)i, .next = &receives[(i + 1) % RING], .sg_list = &to[i], .num_sge = 1};
    }
    for (int round = 0; round < ROUNDS; round++) {
        const int first = round * BATCH % RING, last = (first + BATCH - 1) % RING;
        receives[last].next = NULL;
        check(ibv_post_recv(two.qp[1], &receives[first], &bad_receive), "ibv_post_recv");
        receives[last].next = &receives[(last + 1) % RING];
        for (int i = 0; i < BATCH; i++)
            fill(memory[(first + i) % RING], round + i, BLOCK);
        sends[last].next = NULL;
        check(ibv_post_send(two.qp[0], &sends[first], &bad), "ibv_post_send");
        sends[last].next = &sends[(last + 1) % RING];
        for (int i = 0; i < BATCH; i++) {
            const int at = (first + i) % RING;
            next_of(two.cq[1], (uint64_t)at);
            must(is_filled(memory[RING + at], round + i, BLOCK), "bytes");
        }
        for (int i = 0; i < BATCH; i++)
            next_of(two.cq[0], (uint64_t)((first + i) % RING));
    }
    close_two(&two);
}

/* Polls for as many completions as there is room for, which may be none. */
static void budgets(void)
{
    struct two two = open_two(reliable(), 0);
    for (int round = 0; round < ROUNDS; round++) {
        int room = 0;
        post_receive(two.qp[1], 2, memory[1], BLOCK);
        send_piece(two.qp[0], 1, memory[0], BLOCK, IBV_SEND_SIGNALED);
        for (int got = 0; got == 0; room = (room + 1) % 3) {
            struct ibv_wc wc[2];
            got = ibv_poll_cq(two.cq[1], room, wc);
            must(got >= 0, "ibv_poll_cq");
        }
        next_of(two.cq[0], 1);
    }
    close_two(&two);
}

/* A region whose addresses begin at 0. */
static void zero_based(void)
{
    struct two two = open_two(IBV_QPT_RC, 0);
    struct ibv_mr *based = need(ibv_reg_mr(pd, memory[4], 4 * BLOCK, RIGHTS | IBV_ACCESS_ZERO_BASED), "ibv_reg_mr");
    for (int round = 0; round < ROUNDS; round++) {
        const uint64_t at = (uint64_t)(round % 4) * BLOCK;
        struct ibv_sge sge = piece(memory[0], BLOCK);
        struct ibv_send_wr wr = {.wr_id = 1,
                                 .sg_list = &sge,
                                 .num_sge = 1,
                                 .opcode = IBV_WR_RDMA_WRITE,
                                 .send_flags = IBV_SEND_SIGNALED,
                                 .wr.rdma = {at, based->rkey}};
        fill(memory[0], round, BLOCK);
        post(two.qp[0], wr);
        next_of(two.cq[0], 1);
        must(is_filled(memory[4 + round % 4], round, BLOCK), "bytes");
        sge = (struct ibv_sge){at, BLOCK, based->lkey};
        post_receive(two.qp[1], 3, memory[1], BLOCK);
        wr.opcode = IBV_WR_SEND;
        post(two.qp[0], wr);
        next_of(two.cq[0], 1);
        next_of(two.cq[1], 3);
        must(is_filled(memory[1], round, BLOCK), "bytes");
    }
    check(ibv_dereg_mr(based), "ibv_dereg_mr");
    close_two(&two);
}

/* One event for several completions, which all are polled for each, and after a wait. */
static void moderated(void)
{
    enum { MESSAGES = 3 };
    struct ibv_comp_channel *channel = need(ibv_create_comp_channel(context), "ibv_create_comp_channel");
    struct ibv_cq *cq = create_cq(2 * DEPTH, channel), *other_cq = create_cq(2 * DEPTH, NULL);
    struct ibv_qp *qp = create_qp(IBV_QPT_RC, cq, cq, NULL, 0), *peer = create_qp(IBV_QPT_RC, other_cq, other_cq, NULL, 0);
    connect_both(qp, peer);
    struct ibv_modify_cq_attr attr = {.attr_mask = IBV_CQ_ATTR_MODERATE, .moderate = {4, 100}};
    const int error = ibv_modify_cq(cq, &attr);
    must(error == 0 || error == EOPNOTSUPP || error == ENOSYS, "ibv_modify_cq");
    unsigned events = 0;
    for (int round = 0; round < ROUNDS; round++) {
        check(ibv_req_notify_cq(cq, 0), "ibv_req_notify_cq");
        for (int i = 0; i < MESSAGES; i++) {
            post_receive(qp, 2, memory[i], BLOCK);
            send_piece(peer, 1, memory[8 + i], BLOCK, IBV_SEND_SIGNALED);
        }
        for (int got = 0; got < MESSAGES;) {
            struct pollfd ready = {.fd = channel->fd, .events = POLLIN};
            if (poll(&ready, 1, 20) == 1) {
                struct ibv_cq *ready_cq;
                void *user;
                check(ibv_get_cq_event(channel, &ready_cq, &user), "ibv_get_cq_event");
                events++;
                check(ibv_req_notify_cq(cq, 0), "ibv_req_notify_cq");
            }
            struct ibv_wc wc;
            while (ibv_poll_cq(cq, 1, &wc) > 0)
                got++;
        }
        for (int i = 0; i < MESSAGES; i++)
            next_of(other_cq, 1);
    }
    ibv_ack_cq_events(cq, events);
    destroy_qp(qp);
    destroy_qp(peer);
    destroy_cq(cq);
    destroy_cq(other_cq);
    check(ibv_destroy_comp_channel(channel), "ibv_destroy_comp_channel");
}

/* A pool of connections, one of which is made anew after each round: by new queue pairs, or by the same through RESET.
 * */
static void pool(void)
{
    enum { SLOTS = 4 };
    struct ibv_cq *cq = create_cq(4 * DEPTH, NULL);
    struct ibv_qp *ends[SLOTS][2];
    for (int i = 0; i < SLOTS; i++) {
        for (int end = 0; end < 2; end++)
            ends[i][end] = create_qp(IBV_QPT_RC, cq, cq, NULL, 0);
        connect_both(ends[i][0], ends[i][1]);
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < SLOTS; i++) {
            access_remote(ends[i][0], IBV_WR_RDMA_WRITE, 1, memory[i], BLOCK, memory[8 + i], IBV_SEND_SIGNALED);
            next_of(cq, 1);
        }
        struct ibv_qp **old = ends[round % SLOTS];
        struct ibv_qp_attr attr = {0};
        if (round % 3 == 0) {
            /* One end stays, through RESET. */
            destroy_qp(old[0]);
            old[0] = create_qp(IBV_QPT_RC, cq, cq, NULL, 0);
            modify(old[1], &attr, IBV_QPS_RESET, 0);
        } else
            for (int end = 0; end < 2; end++) {
                struct ibv_qp *const gone = old[end];
                if (round % 2)
                    old[end] = create_qp(IBV_QPT_RC, cq, cq, NULL, 0);
                destroy_qp(gone);
                if (round % 2 == 0)
                    old[end] = create_qp(IBV_QPT_RC, cq, cq, NULL, 0);
            }
        connect_both(old[round % 2], old[!(round % 2)]);
    }
    for (int i = 0; i < SLOTS; i++)
        for (int end = 0; end < 2; end++)
            destroy_qp(ends[i][end]);
    destroy_cq(cq);
}

/* Processes before the device is opened, and programs that are started while messages are outstanding. */
static void forks(void)
{
    for (int i = 0; i < 2; i++) {
        const pid_t child = fork();
        if (child == 0)
            _exit(0);
        must(child > 0 && waitpid(child, NULL, 0) == child, "fork");
    }
    check(ibv_fork_init(), "ibv_fork_init");
    open_all();
    struct two two = open_two(reliable(), 0);
    for (int round = 0; round < 3; round++) {
        post_receive(two.qp[1], 2, memory[1], BLOCK);
        must(system("true") == 0, "system");
        send_piece(two.qp[0], 1, memory[0], BLOCK, IBV_SEND_SIGNALED);
        next_of(two.cq[1], 2);
        next_of(two.cq[0], 1);
    }
    close_two(&two);
    close_all();
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        void (*run)(void);
        /* It opens the device itself, or none. */
        bool opens;
    } cases[] = {
        {"ping-pong", ping_pong, false},       {"credits", credits, false},
        {"unsignaled", unsignaled, false},     {"inline", inline_sends, false},
        {"linked", linked, false},
        {"batches", batches, false},           {"reads", reads, false},
        {"fenced-add", fenced_add, false},     {"atomics", atomics, false},
        {"datagrams", datagrams, false},       {"multicast", multicast, false},
        {"uc", unreliable, false},             {"srq", shared_receives, false},
        {"xrc", extended_connections, false},  {"windows", windows, false},
        {"renewal", renewal, false},           {"tear-down", tear_down, false},
        {"events", events, false},             {"extended-polls", extended_polls, false},
        {"threads", threads, false},           {"own-stacks", own_stacks, false},
        {"processes", processes, true},
        {"cm", cm_server, true},        {"streams", streams, true},
        {"dynamic", dynamic, false},           {"rings", rings, false},
        {"budgets", budgets, false},           {"zero-based", zero_based, false},
        {"moderated", moderated, false},       {"pool", pool, false},
        {"forks", forks, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (count == 2 && strcmp(arguments[1], cases[i].name) == 0) {
            if (!cases[i].opens)
                open_all();
            cases[i].run();
            if (!cases[i].opens)
                close_all();
            return 0;
        }
    fprintf(stderr, "usage: correct CASE: see the end of its source\n");
    return 1;
}
