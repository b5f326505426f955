/*
 * Memory windows, invalidation, ATOMIC WRITE and FLUSH with libibverbs.
 *
 *   memory_windows [-d DEVICE] [-g GID-INDEX] [-m MTU] [CASE]
 *
 * End 1 binds windows to part of its region, end 0 uses them. libibverbs before rdma-core 45 has no FLUSH: the program
 * changes the ring entry of a WRITE before the doorbell.
 */
#define _GNU_SOURCE
#include "../cases.h"

#include <rdma/rdma_user_rxe.h>
#include <stddef.h>

#define PART 4096 /* bytes: offset of all windows, and length of most */
/* Names that older headers lack: IBV_ACCESS_FLUSH_GLOBAL and so on. */
#define ACCESS_FLUSH_GLOBAL (1 << 8)
#define ACCESS_FLUSH_PERSISTENT (1 << 9)
#define WR_FLUSH 14
#define WC_FLUSH 8
#define WC_ATOMIC_WRITE 9
/* wr_ids of FLUSHes: ASCII "FLUSH" and a small number, so that ring_entry finds only the request. */
#define FLUSH_ID 0x464c555348000000
#define PLACEMENT_GLOBAL 1
#define PLACEMENT_PERSISTENT 2
/* Offsets in struct rxe_send_wqe of the members of a FLUSH (Linux 6.2). */
enum { FLUSH_RKEY = 36, FLUSH_PLACEMENT = 40, FLUSH_SELECTIVITY = 41 };

static const unsigned peer_rights = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;

/* A region of the whole buffer of end 1, for windows. */
static struct ibv_mr *register_bindable(int access)
{
    struct ibv_mr *mr = ibv_reg_mr(ends[1].pd, ends[1].buffer, LENGTH, access | IBV_ACCESS_MW_BIND);
    NEED(mr, "ibv_reg_mr: %s", strerror(errno));
    return mr;
}

static struct ibv_mw *alloc_window(enum ibv_mw_type type)
{
    struct ibv_mw *mw = ibv_alloc_mw(ends[1].pd, type);
    NEED(mw, "ibv_alloc_mw: %s", strerror(errno));
    return mw;
}

static void free_window(struct ibv_mw *mw)
{
    NEED(ibv_dealloc_mw(mw) == 0, "ibv_dealloc_mw: %s", strerror(errno));
}

/* A window of `length` bytes at PART. */
static struct ibv_mw_bind_info part_of(struct ibv_mr *mr, uint64_t length, unsigned access)
{
    return (struct ibv_mw_bind_info){mr, (uintptr_t)ends[1].buffer + PART, length, access};
}

/* Each bind of a type 1 window changes its key. */
static void bind_type1(uint64_t id, struct ibv_mw *mw, struct ibv_mr *mr, uint64_t length)
{
    struct ibv_mw_bind bind = {
        .wr_id = id, .send_flags = IBV_SEND_SIGNALED, .bind_info = part_of(mr, length, peer_rights)};
    const uint32_t before = mw->rkey;
    const int error = ibv_bind_mw(ends[1].qp, mw, &bind);
    NEED(error == 0, "ibv_bind_mw: %s", strerror(error));
    check("the key changes with a bind", mw->rkey != before, 1);
}

static void post_to(int side, struct ibv_send_wr *wr)
{
    struct ibv_send_wr *bad;
    const int error = ibv_post_send(ends[side].qp, wr, &bad);
    NEED(error == 0, "ibv_post_send: %s", strerror(error));
}

/* Increments the low byte of the key; returns the new key. */
static uint32_t bind_type2(uint64_t id, struct ibv_mw *mw, struct ibv_mr *mr, uint64_t length, unsigned access,
                           int flags)
{
    struct ibv_send_wr wr = {.wr_id = id, .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED | flags};
    wr.bind_mw.mw = mw;
    wr.bind_mw.rkey = ibv_inc_rkey(mw->rkey);
    wr.bind_mw.bind_info = part_of(mr, length, access);
    post_to(1, &wr);
    return wr.bind_mw.rkey;
}

static void local_invalidate(uint64_t id, uint32_t rkey, int flags)
{
    struct ibv_send_wr wr = {.wr_id = id, .opcode = IBV_WR_LOCAL_INV, .send_flags = IBV_SEND_SIGNALED | flags};
    wr.invalidate_rkey = rkey;
    post_to(1, &wr);
}

static void send_invalidate(uint64_t id, uint32_t rkey)
{
    struct ibv_sge sge = {(uintptr_t)ends[0].buffer, 33, ends[0].mr->lkey};
    struct ibv_send_wr wr = {.wr_id = id,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .opcode = IBV_WR_SEND_WITH_INV,
                             .send_flags = IBV_SEND_SIGNALED};
    wr.invalidate_rkey = rkey;
    post_to(0, &wr);
}

/* End 0 WRITEs `length` bytes through `rkey`; the byte after them must not change. */
static void write_through(uint64_t id, uint32_t rkey, uint64_t offset, uint32_t length)
{
    memset(ends[1].buffer, 0, LENGTH);
    memset(ends[0].buffer, 0x5a, length);
    post(id, IBV_WR_RDMA_WRITE, length, offset, rkey, ends[0].mr->lkey);
    wait_for(0, id, IBV_WC_SUCCESS);
    check("first byte", ends[1].buffer[offset], 0x5a);
    check("last byte", ends[1].buffer[offset + length - 1], 0x5a);
    check("byte after", ends[1].buffer[offset + length], 0);
}

/* A request of end 0 through `rkey` must fail. */
static void expect_refusal(uint64_t id, uint32_t rkey, enum ibv_wr_opcode opcode, uint64_t offset, uint32_t length)
{
    post(id, opcode, length, offset, rkey, ends[0].mr->lkey);
    wait_for(0, id, IBV_WC_REM_ACCESS_ERR);
    check_state(0, IBV_QPS_ERR);
}

/* ---- cases ---- */

static void type1(void)
{
    struct ibv_mr *mr = register_bindable(IBV_ACCESS_LOCAL_WRITE);
    struct ibv_mw *mw = alloc_window(IBV_MW_TYPE_1);
    bind_type1(50, mw, mr, PART);
    check("opcode", wait_for_completion(1, 50, IBV_WC_SUCCESS).opcode, IBV_WC_BIND_MW);
    write_through(1, mw->rkey, PART, 100);
    write_through(2, mw->rkey, 2 * PART - 7, 7);
    check("dereg of a region with a window", ibv_dereg_mr(mr) != 0, 1);
    const uint32_t old = mw->rkey;
    bind_type1(51, mw, mr, 64);
    wait_for_completion(1, 51, IBV_WC_SUCCESS);
    write_through(3, mw->rkey, PART, 64);
    expect_refusal(4, old, IBV_WR_RDMA_WRITE, PART, 8);
    free_window(mw);
    NEED(ibv_dereg_mr(mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
}

/* Fails with rxe of Linux 6.1, which checks only the region's bounds. */
static void type1_bounds(void)
{
    struct ibv_mr *mr = register_bindable(IBV_ACCESS_LOCAL_WRITE);
    struct ibv_mw *mw = alloc_window(IBV_MW_TYPE_1);
    bind_type1(50, mw, mr, PART);
    wait_for_completion(1, 50, IBV_WC_SUCCESS);
    expect_refusal(1, mw->rkey, IBV_WR_RDMA_WRITE, 2 * PART - 8, 9);
    free_window(mw);
    ibv_dereg_mr(mr);
}

static void type1_unbind(void)
{
    struct ibv_mr *mr = register_bindable(IBV_ACCESS_LOCAL_WRITE);
    struct ibv_mw *mw = alloc_window(IBV_MW_TYPE_1);
    bind_type1(50, mw, mr, PART);
    bind_type1(51, mw, mr, 0);
    wait_for_completion(1, 50, IBV_WC_SUCCESS);
    wait_for_completion(1, 51, IBV_WC_SUCCESS);
    NEED(ibv_dereg_mr(mr) == 0, "ibv_dereg_mr of a region without windows: %s", strerror(errno));
    expect_refusal(1, mw->rkey, IBV_WR_RDMA_WRITE, PART, 8);
    free_window(mw);
}

/* A window may be freed while it is bound. */
static void freed_bound(void)
{
    struct ibv_mr *mr = register_bindable(IBV_ACCESS_LOCAL_WRITE);
    struct ibv_mw *mw = alloc_window(IBV_MW_TYPE_1);
    bind_type1(50, mw, mr, PART);
    wait_for_completion(1, 50, IBV_WC_SUCCESS);
    const uint32_t key = mw->rkey;
    free_window(mw);
    NEED(ibv_dereg_mr(mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
    expect_refusal(1, key, IBV_WR_RDMA_WRITE, PART, 8);
}

static void type2_remote_invalidate(void)
{
    struct ibv_mr *mr = register_bindable(IBV_ACCESS_LOCAL_WRITE);
    struct ibv_mw *mw = alloc_window(IBV_MW_TYPE_2);
    const uint32_t key = bind_type2(50, mw, mr, PART, peer_rights, 0);
    wait_for_completion(1, 50, IBV_WC_SUCCESS);
    write_through(1, key, PART, PART);
    post_receive(1, 100, 64);
    send_invalidate(2, key);
    wait_for_completion(0, 2, IBV_WC_SUCCESS);
    const struct ibv_wc wc = wait_for_completion(1, 100, IBV_WC_SUCCESS);
    check("flags", wc.wc_flags & IBV_WC_WITH_INV, IBV_WC_WITH_INV);
    check("invalidated key", (int)wc.invalidated_rkey, (int)key);
    expect_refusal(3, key, IBV_WR_RDMA_WRITE, PART, 8);
    free_window(mw);
    NEED(ibv_dereg_mr(mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
}

static void type2_local_invalidate(void)
{
    struct ibv_mr *mr = register_bindable(IBV_ACCESS_LOCAL_WRITE);
    struct ibv_mw *mw = alloc_window(IBV_MW_TYPE_2);
    mw->rkey = bind_type2(50, mw, mr, PART, peer_rights, 0);
    local_invalidate(51, mw->rkey, IBV_SEND_FENCE);
    mw->rkey = bind_type2(52, mw, mr, 64, IBV_ACCESS_REMOTE_READ, 0);
    wait_for_completion(1, 50, IBV_WC_SUCCESS);
    check("opcode", wait_for_completion(1, 51, IBV_WC_SUCCESS).opcode, IBV_WC_LOCAL_INV);
    wait_for_completion(1, 52, IBV_WC_SUCCESS);
    memset(ends[1].buffer + PART, 0x77, 64);
    post(1, IBV_WR_RDMA_READ, 64, PART, mw->rkey, ends[0].mr->lkey);
    wait_for(0, 1, IBV_WC_SUCCESS);
    check("byte read", ends[0].buffer[63], 0x77);
    expect_refusal(2, mw->rkey, IBV_WR_RDMA_WRITE, PART, 8);
    free_window(mw);
    ibv_dereg_mr(mr);
}

static uint32_t with_byte(uint32_t key, uint32_t byte)
{
    return (key & ~0xffu) | byte;
}

/* A new type 2 window has key byte 0. After each bind mw->rkey is the window's key. */
static void type2_key_after_bind(void)
{
    struct ibv_mr *mr = register_bindable(IBV_ACCESS_LOCAL_WRITE);
    struct ibv_mw *mw = alloc_window(IBV_MW_TYPE_2);
    check("key byte of a new window", (int)(mw->rkey & 0xff), 0);
    const uint32_t bytes[] = {0, 0x7b, 0xff, 0};
    for (uint64_t i = 0; i < 4; i++) {
        struct ibv_send_wr wr = {.wr_id = 50, .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED};
        wr.bind_mw.mw = mw;
        wr.bind_mw.rkey = with_byte(mw->rkey, bytes[i]);
        wr.bind_mw.bind_info = part_of(mr, PART, peer_rights);
        post_to(1, &wr);
        wait_for_completion(1, 50, IBV_WC_SUCCESS);
        check("key after the bind", mw->rkey == wr.bind_mw.rkey, 1);
        write_through(1 + i, mw->rkey, PART, 100);
        local_invalidate(51, mw->rkey, 0);
        wait_for_completion(1, 51, IBV_WC_SUCCESS);
    }
    /* Bind, invalidation and bind in one list: the second bind does not name the current key. */
    struct ibv_send_wr list[3] = {{.wr_id = 52, .opcode = IBV_WR_BIND_MW, .next = &list[1]},
                                  {.wr_id = 53, .opcode = IBV_WR_LOCAL_INV, .next = &list[2]},
                                  {.wr_id = 54, .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED}};
    for (int i = 0; i < 3; i += 2) {
        list[i].bind_mw.mw = mw;
        list[i].bind_mw.rkey = with_byte(mw->rkey, 0x10 + (uint32_t)i);
        list[i].bind_mw.bind_info = part_of(mr, PART, peer_rights);
    }
    list[1].invalidate_rkey = list[0].bind_mw.rkey;
    post_to(1, list);
    wait_for_completion(1, 54, IBV_WC_SUCCESS);
    write_through(9, mw->rkey, PART, 100);
    check("key after the list", (int)(mw->rkey & 0xff), 0x12);
    expect_refusal(10, with_byte(mw->rkey, 0x10), IBV_WR_RDMA_WRITE, PART, 8);
    free_window(mw);
    ibv_dereg_mr(mr);
}

/* A bind that was not posted leaves mw->rkey. */
static void type2_key_not_posted(void)
{
    struct ibv_mr *mr = register_bindable(IBV_ACCESS_LOCAL_WRITE);
    struct ibv_mw *mw = alloc_window(IBV_MW_TYPE_2);
    const uint32_t before = mw->rkey;
    struct ibv_qp *connected = ends[1].qp;
    create_qp(&ends[1]); /* in INIT */
    struct ibv_send_wr wr = {.wr_id = 50, .opcode = IBV_WR_BIND_MW}, *bad = NULL;
    wr.bind_mw.mw = mw;
    wr.bind_mw.rkey = with_byte(before, 5);
    wr.bind_mw.bind_info = part_of(mr, PART, peer_rights);
    check("a bind in INIT", ibv_post_send(ends[1].qp, &wr, &bad), EINVAL);
    check("the key is unchanged", mw->rkey == before, 1);
    NEED(ibv_destroy_qp(ends[1].qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
    ends[1].qp = connected;
    free_window(mw);
    ibv_dereg_mr(mr);
}

/* A type 2 window belongs to one queue pair. */
static void type2_other_qp(void)
{
    struct ibv_mr *mr = register_bindable(IBV_ACCESS_LOCAL_WRITE);
    struct ibv_mw *mw = alloc_window(IBV_MW_TYPE_2);
    struct ibv_qp *first = ends[1].qp;
    create_qp(&ends[1]);
    const struct address nobody = {.qpn = 1, .gid = ends[1].gid};
    connect_to(&ends[1], &nobody, &options);
    const uint32_t key = bind_type2(50, mw, mr, PART, peer_rights, 0);
    wait_for_completion(1, 50, IBV_WC_SUCCESS);
    struct ibv_qp *other = ends[1].qp;
    ends[1].qp = first;
    expect_refusal(1, key, IBV_WR_RDMA_WRITE, PART, 8);
    NEED(ibv_destroy_qp(other) == 0, "ibv_destroy_qp: %s", strerror(errno));
    NEED(ibv_dereg_mr(mr) == 0, "ibv_dereg_mr after ibv_destroy_qp of the QP that bound the window: %s",
         strerror(errno));
    free_window(mw);
}

/* A bind of a type 2 window must fail. Frees the window and the region. */
static void expect_bind_error(struct ibv_mw *mw, struct ibv_mr *mr, uint64_t length, unsigned access)
{
    bind_type2(50, mw, mr, length, access, 0);
    post_receive(1, 101, 64);
    struct ibv_wc wc = wait_for_completion(1, 50, IBV_WC_MW_BIND_ERR);
    check("queue pair number", (int)wc.qp_num, (int)ends[1].qp->qp_num);
    wait_for_completion(1, 101, IBV_WC_WR_FLUSH_ERR);
    check_state(1, IBV_QPS_ERR);
    free_window(mw);
    NEED(ibv_dereg_mr(mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
}

static void bind_without_right(void)
{
    struct ibv_mr *mr = ibv_reg_mr(ends[1].pd, ends[1].buffer, LENGTH, IBV_ACCESS_LOCAL_WRITE);
    NEED(mr, "ibv_reg_mr: %s", strerror(errno));
    expect_bind_error(alloc_window(IBV_MW_TYPE_2), mr, PART, peer_rights);
}

static void bind_write_to_read_only(void)
{
    expect_bind_error(alloc_window(IBV_MW_TYPE_2), register_bindable(0), PART, IBV_ACCESS_REMOTE_WRITE);
}

static void bind_beyond_region(void)
{
    expect_bind_error(alloc_window(IBV_MW_TYPE_2), register_bindable(IBV_ACCESS_LOCAL_WRITE), LENGTH - PART + 1,
                      peer_rights);
}

static void bind_type2_zero_length(void)
{
    expect_bind_error(alloc_window(IBV_MW_TYPE_2), register_bindable(IBV_ACCESS_LOCAL_WRITE), 0, peer_rights);
}

static void bind_type2_twice(void)
{
    struct ibv_mr *mr = register_bindable(IBV_ACCESS_LOCAL_WRITE);
    struct ibv_mw *mw = alloc_window(IBV_MW_TYPE_2);
    mw->rkey = bind_type2(49, mw, mr, PART, peer_rights, 0);
    wait_for_completion(1, 49, IBV_WC_SUCCESS);
    bind_type2(50, mw, mr, PART, peer_rights, 0);
    wait_for_completion(1, 50, IBV_WC_MW_BIND_ERR);
    check_state(1, IBV_QPS_ERR);
    free_window(mw);
    ibv_dereg_mr(mr);
}

static void invalidate_type1(void)
{
    struct ibv_mr *mr = register_bindable(IBV_ACCESS_LOCAL_WRITE);
    struct ibv_mw *mw = alloc_window(IBV_MW_TYPE_1);
    bind_type1(50, mw, mr, PART);
    wait_for_completion(1, 50, IBV_WC_SUCCESS);
    local_invalidate(51, mw->rkey, 0);
    wait_for_completion(1, 51, IBV_WC_LOC_QP_OP_ERR);
    check_state(1, IBV_QPS_ERR);
    free_window(mw);
    ibv_dereg_mr(mr);
}

static void remote_invalidate_region(void)
{
    post_receive(1, 100, 64);
    send_invalidate(1, ends[1].mr->rkey);
    wait_for_completion(1, 100, IBV_WC_REM_INV_REQ_ERR);
    wait_for_completion(0, 1, IBV_WC_RETRY_EXC_ERR); /* a responder error of class J (IBA 9.9.3) is not acknowledged */
    check_state(1, IBV_QPS_ERR);
}

/* ---- ATOMIC WRITE and FLUSH ---- */

/* Gives both ends new queue pairs, for ibv_wr_*. */
static void use_extended_qps(unsigned operations)
{
    for (int side = 0; side < 2; side++) {
        struct ibv_qp_init_attr_ex init = {
            .send_cq = ends[side].cq,
            .recv_cq = ends[side].cq,
            .cap = {.max_send_wr = 8, .max_recv_wr = 8, .max_send_sge = 1, .max_recv_sge = 1},
            .qp_type = IBV_QPT_RC,
            .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
            .pd = ends[side].pd,
            .send_ops_flags = operations,
        };
        NEED(ibv_destroy_qp(ends[side].qp) == 0, "ibv_destroy_qp: %s", strerror(errno));
        ends[side].qp = ibv_create_qp_ex(context, &init);
        NEED(ends[side].qp, "ibv_create_qp_ex: %s", strerror(errno));
        struct ibv_qp_attr attr = {
            .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = peer_rights | ACCESS_FLUSH_GLOBAL};
        NEED(ibv_modify_qp(ends[side].qp, &attr,
                           IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS) == 0,
             "to INIT: %s", strerror(errno));
    }
    for (int side = 0; side < 2; side++) {
        const struct address peer = address_of(&ends[!side]);
        connect_to(&ends[side], &peer, &options);
    }
}

static void type2_key_extended(void)
{
    use_extended_qps(IBV_QP_EX_WITH_BIND_MW | IBV_QP_EX_WITH_LOCAL_INV);
    struct ibv_mr *mr = register_bindable(IBV_ACCESS_LOCAL_WRITE);
    struct ibv_mw *mw = alloc_window(IBV_MW_TYPE_2);
    const struct ibv_mw_bind_info info = part_of(mr, PART, peer_rights);
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(ends[1].qp);
    for (uint64_t i = 0; i < 3; i++) {
        const uint32_t key = with_byte(mw->rkey, 0x40 + (uint32_t)i);
        ibv_wr_start(qp);
        qp->wr_flags = IBV_SEND_SIGNALED;
        qp->wr_id = 50;
        ibv_wr_bind_mw(qp, mw, key, &info);
        NEED(ibv_wr_complete(qp) == 0, "ibv_wr_complete: %s", strerror(errno));
        wait_for_completion(1, 50, IBV_WC_SUCCESS);
        check("key after ibv_wr_bind_mw", mw->rkey == key, 1);
        write_through(1 + i, mw->rkey, PART, 100);
        ibv_wr_start(qp);
        qp->wr_id = 51;
        ibv_wr_local_inv(qp, mw->rkey);
        NEED(ibv_wr_complete(qp) == 0, "ibv_wr_complete: %s", strerror(errno));
        wait_for_completion(1, 51, IBV_WC_SUCCESS);
    }
    free_window(mw);
    ibv_dereg_mr(mr);
}

static void atomic_write_at(uint64_t id, uint64_t offset, int status)
{
    static const uint8_t word[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(ends[0].qp);
    ibv_wr_start(qp);
    qp->wr_id = id;
    qp->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_atomic_write(qp, ends[1].mr->rkey, (uintptr_t)ends[1].buffer + offset, word);
    const int error = ibv_wr_complete(qp);
    NEED(error == 0, "ibv_wr_complete: %s", strerror(error));
    const struct ibv_wc wc = wait_for_completion(0, id, status);
    if (status != IBV_WC_SUCCESS)
        return;
    check("opcode", wc.opcode, WC_ATOMIC_WRITE);
    check("the word", memcmp(ends[1].buffer + offset, word, sizeof word), 0);
}

static void atomic_write(void)
{
    use_extended_qps(IBV_QP_EX_WITH_ATOMIC_WRITE);
    memset(ends[1].buffer, 0, LENGTH);
    atomic_write_at(1, 64, IBV_WC_SUCCESS);
    atomic_write_at(2, LENGTH - 8, IBV_WC_SUCCESS);
    check("byte before", ends[1].buffer[63], 0);
    check("byte after", ends[1].buffer[72], 0);
    atomic_write_at(3, 68, IBV_WC_REM_INV_REQ_ERR);
}

/* Finds request `id` in the writable shared mappings, among them the rings. Entries start at multiples of 64 bytes. */
static uint8_t *ring_entry(uint64_t id)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    NEED(maps, "/proc/self/maps: %s", strerror(errno));
    char line[512];
    uint8_t *found = NULL;
    while (!found && fgets(line, sizeof line, maps)) {
        uint8_t *start, *end;
        char rights[5];
        if (sscanf(line, "%p-%p %4s", (void **)&start, (void **)&end, rights) != 3 || strcmp(rights, "rw-s") != 0)
            continue;
        for (uint8_t *entry = start; !found && entry + sizeof(struct rxe_send_wqe) <= end; entry += 64)
            if (memcmp(entry, &id, sizeof id) == 0)
                found = entry;
    }
    fclose(maps);
    NEED(found, "the request is in no ring");
    return found;
}

/* A WRITE whose ring entry gets the opcode and the members of a FLUSH. The device reads the length from dma.length. */
static void flush_range(uint64_t id, uint32_t rkey, uint64_t offset, uint32_t length, uint8_t placement, int status)
{
    struct ibv_qp_ex *qp = ibv_qp_to_qp_ex(ends[0].qp);
    ibv_wr_start(qp);
    qp->wr_id = id;
    qp->wr_flags = IBV_SEND_SIGNALED;
    ibv_wr_rdma_write(qp, rkey, (uintptr_t)ends[1].buffer + offset);
    uint8_t *entry = ring_entry(id);
    const uint32_t opcode = WR_FLUSH;
    memcpy(entry + offsetof(struct rxe_send_wqe, wr.opcode), &opcode, 4);
    memcpy(entry + offsetof(struct rxe_send_wqe, dma.length), &length, 4);
    memcpy(entry + FLUSH_RKEY, &rkey, 4);
    entry[FLUSH_PLACEMENT] = placement;
    entry[FLUSH_SELECTIVITY] = 0; /* a range */
    const int error = ibv_wr_complete(qp);
    NEED(error == 0, "ibv_wr_complete: %s", strerror(error));
    const struct ibv_wc wc = wait_for_completion(0, id, status);
    if (status == IBV_WC_SUCCESS)
        check("opcode", wc.opcode, WC_FLUSH);
}

static void flush(void)
{
    use_extended_qps(IBV_QP_EX_WITH_RDMA_WRITE);
    struct ibv_mr *mr =
        ibv_reg_mr(ends[1].pd, ends[1].buffer, LENGTH, IBV_ACCESS_LOCAL_WRITE | peer_rights | ACCESS_FLUSH_GLOBAL);
    NEED(mr, "ibv_reg_mr with FLUSH_GLOBAL: %s", strerror(errno));
    write_through(1, mr->rkey, 0, 100);
    flush_range(FLUSH_ID + 1, mr->rkey, 0, 100, PLACEMENT_GLOBAL, IBV_WC_SUCCESS);
    flush_range(FLUSH_ID + 2, mr->rkey, PART, PART, PLACEMENT_GLOBAL, IBV_WC_SUCCESS);
    /* The queue pair of end 1 does not allow FLUSHes for persistence. */
    flush_range(FLUSH_ID + 3, mr->rkey, PART, PART, PLACEMENT_PERSISTENT, IBV_WC_REM_INV_REQ_ERR);
    ibv_dereg_mr(mr);
}

/* The queue pair of end 1 allows the FLUSH, the region does not. */
static void flush_not_allowed(void)
{
    use_extended_qps(IBV_QP_EX_WITH_RDMA_WRITE);
    flush_range(FLUSH_ID + 1, ends[1].mr->rkey, 0, 100, PLACEMENT_GLOBAL, IBV_WC_REM_ACCESS_ERR);
}

static void register_flush_persistent_refused(void)
{
    struct ibv_mr *mr =
        ibv_reg_mr(ends[1].pd, ends[1].buffer, LENGTH, IBV_ACCESS_LOCAL_WRITE | ACCESS_FLUSH_PERSISTENT);
    check("a region with FLUSH_PERSISTENT", mr != NULL, 0);
}

static const struct test_case cases[] = {
    {"type1", type1},
    {"type1_bounds", type1_bounds},
    {"type1_unbind", type1_unbind},
    {"freed_bound", freed_bound},
    {"type2_remote_invalidate", type2_remote_invalidate},
    {"type2_local_invalidate", type2_local_invalidate},
    {"type2_key_after_bind", type2_key_after_bind},
    {"type2_key_not_posted", type2_key_not_posted},
    {"type2_key_extended", type2_key_extended},
    {"type2_other_qp", type2_other_qp},
    {"bind_without_right", bind_without_right},
    {"bind_write_to_read_only", bind_write_to_read_only},
    {"bind_beyond_region", bind_beyond_region},
    {"bind_type2_zero_length", bind_type2_zero_length},
    {"bind_type2_twice", bind_type2_twice},
    {"invalidate_type1", invalidate_type1},
    {"remote_invalidate_region", remote_invalidate_region},
    {"atomic_write", atomic_write},
    {"flush", flush},
    {"flush_not_allowed", flush_not_allowed},
    {"register_flush_persistent_refused", register_flush_persistent_refused},
};

int main(int argc, char **argv)
{
    return run_cases(cases, sizeof cases / sizeof cases[0], argc, argv);
}
