/*
 * Calls of ibv_wr_* in right and wrong orders, for `userdma check` (test/system/check/batches.test.ts). `correct`:
 * batches of two threads that are posted. `unfinished`: batches whose first request lacks its data, each with a buffer
 * that is changed after its completion was polled. Otherwise each argument is a list of calls on a queue pair of its
 * own, separated by commas: a function without `ibv_wr_`, `set_…` for setters, `id` (wr_id changes), `thread:CALL` (in
 * another thread, that ends), `post` (ibv_post_send), `destroy`, `exit`. Before the calls, `ud:` makes a queue pair of
 * type UD, `none:` one without operations, `rts:` one in RTS that is connected to itself. Nothing is posted.
 */
#define _GNU_SOURCE
#include "../../../docs/findings/pair.h"

#include <pthread.h>
#include <stdbool.h>

static struct end end;
static struct ibv_mw *window;

static struct ibv_qp *extended_qp(struct end *of, enum ibv_qp_type type, uint64_t operations)
{
    struct ibv_qp_init_attr_ex init = {
        .qp_type = type,
        .send_cq = of->cq,
        .recv_cq = of->cq,
        .pd = of->pd,
        .cap = {.max_send_wr = 16, .max_recv_wr = 4, .max_send_sge = 2, .max_recv_sge = 1, .max_inline_data = 32},
        .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
        .send_ops_flags = operations,
    };
    return need(ibv_create_qp_ex(context, &init), "ibv_create_qp_ex");
}

#define UD_OPERATIONS (IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM)
#define RC_OPERATIONS                                                                                                  \
    (UD_OPERATIONS | IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM | IBV_QP_EX_WITH_RDMA_READ |       \
     IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP | IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD | IBV_QP_EX_WITH_LOCAL_INV |              \
     IBV_QP_EX_WITH_BIND_MW | IBV_QP_EX_WITH_SEND_WITH_INV)

struct step {
    struct ibv_qp_ex *qp;
    const char *call;
};

static bool call(struct ibv_qp_ex *qp, const char *name);

static void *in_thread(void *argument)
{
    const struct step *step = argument;
    call(step->qp, step->call);
    return NULL;
}

static void call_in_thread(struct ibv_qp_ex *qp, const char *name)
{
    pthread_t thread;
    struct step step = {qp, name};
    check(pthread_create(&thread, NULL, in_thread, &step), "pthread_create");
    pthread_join(thread, NULL);
}

/* Returns false if the queue pair is gone. */
static bool call(struct ibv_qp_ex *qp, const char *name)
{
    const uint32_t rkey = end.mr->rkey, lkey = end.mr->lkey;
    const uint64_t at = address_of(&end);
    const struct ibv_sge list[2] = {{.addr = at, .length = 8, .lkey = lkey}, {.addr = at + 64, .length = 8, .lkey = lkey}};
    const struct ibv_data_buf buffers[2] = {{end.buffer, 8}, {end.buffer + 8, 8}};
    const struct ibv_mw_bind_info bind = {.mr = end.mr, .addr = at, .length = 64, .mw_access_flags = IBV_ACCESS_REMOTE_READ};
    struct ibv_ah_attr destination = {.is_global = 1, .port_num = 1, .grh = {.hop_limit = 1, .dgid = gid}};
    destination.grh.sgid_index = (uint8_t)gid_index;
    static struct ibv_ah *ah;
    struct ibv_send_wr *bad, wr = {.opcode = IBV_WR_SEND};
#define CALL(text, ...)                                                                                                \
    if (strcmp(name, text) == 0)                                                                                       \
        __VA_ARGS__
    if (strncmp(name, "thread:", 7) == 0)
        call_in_thread(qp, name + 7);
    CALL("start", ibv_wr_start(qp));
    CALL("complete", ibv_wr_complete(qp));
    CALL("abort", ibv_wr_abort(qp));
    CALL("atomic_cmp_swp", ibv_wr_atomic_cmp_swp(qp, rkey, at, 0, 1));
    CALL("atomic_fetch_add", ibv_wr_atomic_fetch_add(qp, rkey, at, 1));
    CALL("bind_mw", ibv_wr_bind_mw(qp, window, ibv_inc_rkey(window->rkey), &bind));
    CALL("local_inv", ibv_wr_local_inv(qp, window->rkey));
    CALL("rdma_read", ibv_wr_rdma_read(qp, rkey, at));
    CALL("rdma_write", ibv_wr_rdma_write(qp, rkey, at));
    CALL("rdma_write_imm", ibv_wr_rdma_write_imm(qp, rkey, at, 0));
    CALL("send", ibv_wr_send(qp));
    CALL("send_imm", ibv_wr_send_imm(qp, 0));
    CALL("send_inv", ibv_wr_send_inv(qp, rkey));
    CALL("set_sge", ibv_wr_set_sge(qp, lkey, at, 8));
    CALL("set_sge_list", ibv_wr_set_sge_list(qp, 2, list));
    CALL("set_inline_data", ibv_wr_set_inline_data(qp, end.buffer, 8));
    CALL("set_inline_data_list", ibv_wr_set_inline_data_list(qp, 2, buffers));
    CALL("set_long_inline_data", ibv_wr_set_inline_data(qp, end.buffer, 33));
    CALL("set_long_list", ibv_wr_set_sge_list(qp, 3, (struct ibv_sge[3]){list[0], list[1], list[0]}));
    CALL("set_ud_addr", {
        ah = ah ? ah : need(ibv_create_ah(end.pd, &destination), "ibv_create_ah");
        ibv_wr_set_ud_addr(qp, ah, 1, 0x11111111);
    });
    CALL("set_xrc_srqn", ibv_wr_set_xrc_srqn(qp, 1));
    CALL("id", qp->wr_id++);
    CALL("post", ibv_post_send(&qp->qp_base, &wr, &bad));
    CALL("exit", exit(0));
    CALL("destroy", {
        check(ibv_destroy_qp(&qp->qp_base), "ibv_destroy_qp");
        return false;
    });
    return true;
}

static void call_all(char *calls)
{
    const bool is_ud = strncmp(calls, "ud:", 3) == 0, has_none = strncmp(calls, "none:", 5) == 0;
    const bool is_ready = strncmp(calls, "rts:", 4) == 0;
    calls += is_ud ? 3 : has_none ? 5 : is_ready ? 4 : 0;
    struct ibv_qp *qp = extended_qp(&end, is_ud ? IBV_QPT_UD : IBV_QPT_RC,
                                    has_none ? 0
                                    : is_ud  ? UD_OPERATIONS
                                             : RC_OPERATIONS);
    struct ibv_qp_ex *extended = ibv_qp_to_qp_ex(qp);
    extended->wr_flags = IBV_SEND_SIGNALED;
    if (is_ready) {
        struct end self = end;
        self.qp = qp;
        self.attr.dest_qp_num = qp->qp_num;
        to_init(&self);
        to_rtr(&self, &self);
        to_rts(&self);
    }
    for (char *name = strtok(calls, ","); name; name = strtok(NULL, ","))
        if (!call(extended, name))
            return;
    check(ibv_destroy_qp(qp), "ibv_destroy_qp");
}

/* ---- correct batches ---- */

#define BATCHES 50
static struct end one, other;

/* Writes, reads and atomics in batches, of which every third is aborted. */
static void *write_batches(void *unused)
{
    (void)unused;
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(one.qp);
    const uint32_t rkey = other.mr->rkey, lkey = one.mr->lkey;
    const uint64_t from = address_of(&one), to = address_of(&other);
    const struct ibv_sge list[2] = {{.addr = from, .length = 8, .lkey = lkey}, {.addr = from + 64, .length = 8, .lkey = lkey}};
    const struct ibv_data_buf buffers[2] = {{one.buffer, 8}, {one.buffer + 8, 8}};
    for (int i = 0; i < BATCHES; i++) {
        ibv_wr_start(qp);
        qp->wr_id = i;
        qp->wr_flags = 0;
        ibv_wr_rdma_write(qp, rkey, to);
        ibv_wr_set_sge(qp, lkey, from, 64);
        ibv_wr_rdma_write(qp, rkey, to);
        ibv_wr_set_sge_list(qp, 2, list);
        ibv_wr_rdma_write(qp, rkey, to);
        ibv_wr_set_inline_data(qp, one.buffer, 32);
        ibv_wr_rdma_write(qp, rkey, to);
        ibv_wr_set_inline_data_list(qp, 2, buffers);
        ibv_wr_rdma_read(qp, rkey, to);
        ibv_wr_set_sge(qp, lkey, from + 256, 64);
        qp->wr_flags = IBV_SEND_SIGNALED;
        ibv_wr_atomic_fetch_add(qp, rkey, to + 512, 1);
        ibv_wr_set_sge(qp, lkey, from + 512, 8);
        if (i % 3 == 2) {
            ibv_wr_abort(qp);
            continue;
        }
        check(ibv_wr_complete(qp), "ibv_wr_complete");
        completion(&one);
    }
    return NULL;
}

/* The only mistake is the missing setter: libmlx5 posts no such request. */
static int unfinished(void)
{
    make_end(&one);
    make_end(&other);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    one.qp = extended_qp(&one, IBV_QPT_RC, RC_OPERATIONS);
    to_init(&one);
    connect_ends(&one, &other);
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(one.qp);
    for (int i = 0; i < 8; i++) {
        memset(one.buffer, i, SIZE);
        ibv_wr_start(qp);
        qp->wr_id = 2 * i;
        qp->wr_flags = 0;
        ibv_wr_rdma_write(qp, other.mr->rkey, address_of(&other));
        qp->wr_id = 2 * i + 1;
        qp->wr_flags = IBV_SEND_SIGNALED;
        ibv_wr_rdma_write(qp, other.mr->rkey, address_of(&other));
        ibv_wr_set_sge(qp, one.mr->lkey, address_of(&one), 64);
        check(ibv_wr_complete(qp), "ibv_wr_complete");
        completion(&one);
    }
    return destroy_pair(&one, &other);
}

static int correct(void)
{
    make_end(&one);
    make_end(&other);
    check(ibv_destroy_qp(one.qp), "ibv_destroy_qp");
    one.qp = extended_qp(&one, IBV_QPT_RC, RC_OPERATIONS);
    to_init(&one);
    connect_ends(&one, &other);
    write_batches(NULL);
    pthread_t thread;
    check(pthread_create(&thread, NULL, write_batches, NULL), "pthread_create");
    pthread_join(thread, NULL);
    return destroy_pair(&one, &other);
}

int main(int argc, char **argv)
{
    if (argc < 2 || argv[1][0] == '-') {
        fprintf(stderr, "usage: batches correct | unfinished | [ud:|none:|rts:]CALL,CALL... ...\n");
        return 1;
    }
    open_device();
    if (argc == 2 && strcmp(argv[1], "correct") == 0)
        return correct();
    if (argc == 2 && strcmp(argv[1], "unfinished") == 0)
        return unfinished();
    make_end(&end);
    window = need(ibv_alloc_mw(end.pd, IBV_MW_TYPE_2), "ibv_alloc_mw");
    for (int i = 1; i < argc; i++) {
        /* A call that waits for ever. */
        alarm(2);
        call_all(argv[i]);
    }
    return 0;
}
