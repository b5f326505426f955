/*
 * An owner lends parts of its memory (userdma.h), and a peer READs: first bytes that are lent, then, but for `right`,
 * bytes that are not, or not any more: the error not-lent of `userdma check` (test/system/check/lent.test.ts). CASE is
 * how they are lent. The cases `…-early` take bytes back while a READ of them is outstanding: the warning
 * taken-back-early.
 *
 *   lend_cases CASE [right] | hold
 */
#include "../../../docs/findings/pair.h"

#include <infiniband/mlx5dv.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/time.h>
#include <userdma.h>

enum { BLOCK = 1024 };

static struct end owner, peer;
static bool is_right;

static void read_bytes(uint64_t address, uint32_t length, uint32_t rkey)
{
    const struct ibv_sge place = {.addr = address_of(&peer), .length = length, .lkey = peer.mr->lkey};
    post(&peer, IBV_WR_RDMA_READ, place, address, rkey);
    completion(&peer);
}

static void read_at(uint32_t offset, uint32_t length)
{
    read_bytes(address_of(&owner) + offset, length, owner.mr->rkey);
}

static uint64_t lend(uint32_t offset, uint32_t length, const char *label)
{
    return userdma_lend(owner.buffer + offset, length, USERDMA_READ, label);
}

/* A pool lends a slab, then a block of it, then a buffer of that: what the outer ones allow, the inner one's end
 * leaves. */
static void levels(void)
{
    const uint64_t slab = lend(0, 3 * BLOCK, "slab"), block = lend(BLOCK, BLOCK, "block"), buffer = lend(BLOCK, 64, "buffer");
    read_at(BLOCK, 64);
    userdma_take_back(buffer);
    read_at(BLOCK, 64);
    userdma_take_back(slab);
    read_at(BLOCK, BLOCK);
    if (!is_right)
        read_at(0, 64); /* only the slab had it */
    userdma_take_back(block);
}

static void overlaps(void)
{
    const uint64_t low = lend(0, 2 * BLOCK, "low");
    lend(BLOCK, 2 * BLOCK, "high");
    read_at(0, 3 * BLOCK);
    userdma_take_back(low);
    read_at(BLOCK, 2 * BLOCK);
    if (!is_right)
        read_at(BLOCK - 64, 2 * BLOCK);
}

/* The key is that of a window. */
static void windows(void)
{
    struct ibv_mr *bindable = need(ibv_reg_mr(owner.pd, owner.buffer, SIZE, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND), "ibv_reg_mr");
    struct ibv_mw *window = need(ibv_alloc_mw(owner.pd, IBV_MW_TYPE_1), "ibv_alloc_mw");
    struct ibv_mw_bind bind = {.send_flags = IBV_SEND_SIGNALED,
                               .bind_info = {.mr = bindable,
                                             .addr = address_of(&owner) + BLOCK,
                                             .length = 2 * BLOCK,
                                             .mw_access_flags = IBV_ACCESS_REMOTE_READ}};
    check(ibv_bind_mw(owner.qp, window, &bind), "ibv_bind_mw");
    completion(&owner);
    lend(BLOCK, BLOCK, "half of the window");
    read_bytes(address_of(&owner) + BLOCK, BLOCK, window->rkey);
    if (!is_right)
        read_bytes(address_of(&owner) + 2 * BLOCK, 64, window->rkey);
    check(ibv_dealloc_mw(window), "ibv_dealloc_mw");
    check(ibv_dereg_mr(bindable), "ibv_dereg_mr");
}

/* A region with on-demand paging; of the whole address space. */
static void on_demand(void *start, size_t length)
{
    struct ibv_mr *region = need(ibv_reg_mr(owner.pd, start, length, ALL_RIGHTS | IBV_ACCESS_ON_DEMAND), "ibv_reg_mr");
    const uint64_t block = lend(0, BLOCK, "block");
    read_bytes(address_of(&owner), BLOCK, region->rkey);
    userdma_take_back(block);
    if (!is_right)
        read_bytes(address_of(&owner), 64, region->rkey);
    check(ibv_dereg_mr(region), "ibv_dereg_mr");
}

/* Ends a lend while a READ of its bytes is outstanding, `milliseconds` after the post, or after it. Each packet takes 1
 * s (--fault). */
static void end_early(uint64_t lend, useconds_t milliseconds)
{
    if (is_right)
        completion(&peer);
    else
        usleep(milliseconds * 1000);
    userdma_take_back(lend);
    if (!is_right)
        completion(&peer);
}

static struct mlx5dv_mkey *key;

/* Makes a key over the first and the third block of the region. */
static void make_indirect_key(void)
{
    check(ibv_destroy_qp(owner.qp), "ibv_destroy_qp");
    struct ibv_qp_init_attr_ex init = {.qp_type = IBV_QPT_RC,
                                       .send_cq = owner.cq,
                                       .recv_cq = owner.cq,
                                       .pd = owner.pd,
                                       .cap = {.max_send_wr = 16, .max_send_sge = 4, .max_inline_data = 512},
                                       .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
                                       .send_ops_flags = IBV_QP_EX_WITH_SEND};
    struct mlx5dv_qp_init_attr own = {.comp_mask = MLX5DV_QP_INIT_ATTR_MASK_SEND_OPS_FLAGS,
                                      .send_ops_flags = MLX5DV_QP_EX_WITH_MR_LIST};
    owner.qp = need(mlx5dv_create_qp(context, &init, &own), "mlx5dv_create_qp");
    to_init(&owner);
    check(ibv_destroy_qp(peer.qp), "ibv_destroy_qp");
    struct ibv_qp_init_attr plain = small_qp();
    plain.send_cq = plain.recv_cq = peer.cq;
    create_queue_pair(&peer, plain);
    to_init(&peer);
    owner.attr.dest_qp_num = peer.attr.dest_qp_num = 0;
    connect_ends(&owner, &peer);
    struct mlx5dv_mkey_init_attr attributes = {
        .pd = owner.pd, .create_flags = MLX5DV_MKEY_INIT_ATTR_FLAGS_INDIRECT, .max_entries = 4};
    key = need(mlx5dv_create_mkey(&attributes), "mlx5dv_create_mkey");
    const struct ibv_sge parts[] = {{address_of(&owner), BLOCK, owner.mr->lkey},
                                    {address_of(&owner) + 2 * BLOCK, BLOCK, owner.mr->lkey}};
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(owner.qp);
    struct mlx5dv_qp_ex *own_qp = mlx5dv_qp_ex_from_ibv_qp_ex(qp);
    ibv_wr_start(qp);
    qp->wr_id = 9;
    qp->wr_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE;
    mlx5dv_wr_mr_list(own_qp, key, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ, 2, (struct ibv_sge *)parts);
    check(ibv_wr_complete(qp), "ibv_wr_complete");
    completion(&owner);
}

static void indirect(void)
{
    make_indirect_key();
    lend(0, BLOCK, "first");
    const uint64_t third = lend(2 * BLOCK, BLOCK, "third");
    read_bytes(0, 2 * BLOCK, key->rkey);
    userdma_take_back(third);
    read_bytes(0, BLOCK, key->rkey);
    if (!is_right)
        read_bytes(BLOCK - 64, 128, key->rkey);
    check(mlx5dv_destroy_mkey(key), "mlx5dv_destroy_mkey");
}

/* No READ is sent again because its packets take long. */
static void wait_long(void)
{
    const int four_seconds = 20;
    owner.attr.timeout = peer.attr.timeout = four_seconds;
}

static void indirect_early(void)
{
    wait_long();
    make_indirect_key();
    const struct ibv_sge place = {address_of(&peer), 128, peer.mr->lkey};
    lend(0, BLOCK, "first");
    const uint64_t third = lend(2 * BLOCK, BLOCK, "third");
    post(&peer, IBV_WR_RDMA_READ, place, BLOCK - 64, key->rkey);
    end_early(third, 500);
    check(mlx5dv_destroy_mkey(key), "mlx5dv_destroy_mkey");
}

enum { DC_KEY = 0x1122 };
static struct ibv_qp *target, *initiator;
static struct ibv_srq *srq;
static struct ibv_ah *path;

static struct ibv_qp *create_dc(struct end *end, enum mlx5dv_dc_type type)
{
    struct ibv_qp_init_attr_ex init = {.qp_type = IBV_QPT_DRIVER,
                                       .send_cq = end->cq,
                                       .recv_cq = end->cq,
                                       .srq = type == MLX5DV_DCTYPE_DCT ? srq : NULL,
                                       .sq_sig_all = 1,
                                       .pd = end->pd,
                                       .comp_mask = IBV_QP_INIT_ATTR_PD};
    if (type == MLX5DV_DCTYPE_DCI) {
        init.cap = (struct ibv_qp_cap){.max_send_wr = 8, .max_send_sge = 1};
        init.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
        init.send_ops_flags = IBV_QP_EX_WITH_RDMA_READ;
    }
    struct mlx5dv_qp_init_attr own = {.comp_mask = MLX5DV_QP_INIT_ATTR_MASK_DC,
                                      .dc_init_attr = {.dc_type = type, .dct_access_key = type == MLX5DV_DCTYPE_DCT ? DC_KEY : 0}};
    struct ibv_qp *qp = need(mlx5dv_create_qp(context, &init, &own), "mlx5dv_create_qp");
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = IBV_ACCESS_REMOTE_READ};
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | (type == MLX5DV_DCTYPE_DCT ? IBV_QP_ACCESS_FLAGS : 0)),
          "ibv_modify_qp to INIT");
    attr = owner.attr;
    attr.qp_state = IBV_QPS_RTR;
    if (type == MLX5DV_DCTYPE_DCT) {
        check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_MIN_RNR_TIMER | IBV_QP_AV | IBV_QP_PATH_MTU), "ibv_modify_qp to RTR");
        return qp;
    }
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PATH_MTU), "ibv_modify_qp to RTR");
    attr.qp_state = IBV_QPS_RTS;
    check(ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC),
          "ibv_modify_qp to RTS");
    return qp;
}

static void make_dynamic(void)
{
    struct ibv_srq_init_attr init = {.attr = {.max_wr = 4, .max_sge = 1}};
    srq = need(ibv_create_srq(owner.pd, &init), "ibv_create_srq");
    target = create_dc(&owner, MLX5DV_DCTYPE_DCT);
    initiator = create_dc(&peer, MLX5DV_DCTYPE_DCI);
    path = need(ibv_create_ah(peer.pd, &peer.attr.ah_attr), "ibv_create_ah");
}

/* Posts a READ of 64 bytes of the owner's region. */
static void post_read(uint32_t offset)
{
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(initiator);
    ibv_wr_start(qp);
    qp->wr_id = 1;
    ibv_wr_rdma_read(qp, owner.mr->rkey, address_of(&owner) + offset);
    mlx5dv_wr_set_dc_addr(mlx5dv_qp_ex_from_ibv_qp_ex(qp), path, target->qp_num, DC_KEY);
    ibv_wr_set_sge(qp, peer.mr->lkey, address_of(&peer), 64);
    check(ibv_wr_complete(qp), "ibv_wr_complete");
}

static void end_dynamic(void)
{
    check(ibv_destroy_ah(path), "ibv_destroy_ah");
    check(ibv_destroy_qp(initiator), "ibv_destroy_qp");
    check(ibv_destroy_qp(target), "ibv_destroy_qp");
    check(ibv_destroy_srq(srq), "ibv_destroy_srq");
}

/* The lend is to the target. */
static void dynamic(void)
{
    make_dynamic();
    const uint64_t block = userdma_lend_to(owner.buffer, BLOCK, USERDMA_READ, "block", target->qp_num, 0);
    post_read(0);
    completion(&peer);
    userdma_take_back(block);
    if (!is_right) {
        post_read(64);
        completion(&peer);
    }
    end_dynamic();
}

static void dynamic_early(void)
{
    wait_long();
    make_dynamic();
    const uint64_t block = lend(0, BLOCK, "block");
    /* The initiator connects with two packets first. */
    post_read(64);
    end_early(block, 2500);
    end_dynamic();
}

static void lend_in_handler(int number)
{
    (void)number;
    userdma_take_back(lend(BLOCK, 64, "in a handler"));
}

/* A handler lends while the program does, and fills the ring with it. */
static void signals(void)
{
    enum { LENDS = 20000 };
    const struct sigaction action = {.sa_handler = lend_in_handler, .sa_flags = SA_RESTART};
    const struct itimerval often = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
    check(sigaction(SIGALRM, &action, NULL), "sigaction");
    check(setitimer(ITIMER_REAL, &often, NULL), "setitimer");
    for (int i = 0; i < LENDS; i++)
        userdma_take_back(lend(0, 64, "in the program"));
    check(setitimer(ITIMER_REAL, &never, NULL), "setitimer");
    const uint64_t block = lend(0, BLOCK, "block");
    read_at(0, BLOCK);
    userdma_take_back(block);
    if (!is_right)
        read_at(0, 64);
}

/* A child lends its copy of memory that the parent has not lent, and what is no memory. */
static void children(void)
{
    const uint64_t block = lend(0, BLOCK, "block");
    const pid_t child = fork();
    check(child < 0, "fork");
    if (child == 0) {
        lend(BLOCK, BLOCK, "of the child");
        userdma_lend((void *)1, 64, USERDMA_READ, "no memory");
        userdma_lend((void *)1, SIZE_MAX, USERDMA_READ, "all memory");
        userdma_lend(owner.buffer, SIZE_MAX, USERDMA_READ, "beyond the last address");
        userdma_unchecked((void *)64, SIZE_MAX - 64);
        _exit(userdma_take_back(block) != EINVAL);
    }
    int status;
    check(waitpid(child, &status, 0) != child, "waitpid");
    check(status != 0, "the child");
    read_at(0, BLOCK);
    if (!is_right)
        read_at(BLOCK, 64);
}

/* Holds two lends until its input ends. */
static void hold(void)
{
    char byte;
    lend(0, BLOCK, "request 1");
    userdma_lend_to(owner.buffer + BLOCK, 64, USERDMA_READ | USERDMA_WRITE, "request 2", owner.qp->qp_num, 600000);
    puts("ready");
    fflush(stdout);
    check(read(0, &byte, 1) < 0, "read");
}

static void everywhere(void)
{
    on_demand(NULL, SIZE_MAX);
}

static void of_region(void)
{
    on_demand(owner.buffer, SIZE);
}

static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    {"levels", levels},
    {"overlaps", overlaps},
    {"windows", windows},
    {"on-demand", of_region},
    {"everything", everywhere},
    {"indirect", indirect},
    {"indirect-early", indirect_early},
    {"dynamic", dynamic},
    {"dynamic-early", dynamic_early},
    {"hold", hold},
    {"signals", signals},
    {"children", children},
};

int main(int count, char **arguments)
{
    const char *name = count > 1 ? arguments[1] : "";
    is_right = count > 2 && strcmp(arguments[2], "right") == 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (strcmp(name, cases[i].name) == 0) {
            make_pair(&owner, &peer);
            cases[i].run();
            return destroy_pair(&owner, &peer);
        }
    fprintf(stderr, "usage: lend_cases CASE [right]\n");
    return 1;
}
