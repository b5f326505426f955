/*
 * A context used by two programs: the exporter opens it with libibverbs and passes its descriptor; the importer makes
 * the kernel calls of ibv_import_device, ibv_import_pd and ibv_import_mr, which rxe's provider lacks.
 *
 *   imported share [USER]  both use the context at the same time, the importer as UID and GID USER
 *   imported outlive       the exporter is killed, then the importer uses the context
 *   imported take …        the importer
 *
 * The first unexpected result is printed, and the exit status is 1.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/wait.h>

#include "../descriptors.h"
#include "../uverbs/uverbs_calls.h"

#define RIGHTS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ)
/* PATTERN: bytes of the importer's memory. ANSWER: bytes that WRITEs bring. */
enum { PATTERN = 0x5a, ANSWER = 0xa5 };
/* The exporter creates three PDs, the importer one. */
enum { ALL_PDS = 4 };

/* What one process tells the other. `second_mr`: the importer destroys it. `vectors`: completion vectors. */
struct region {
    uint32_t pd, mr, second_mr, lkey, rkey, vectors;
    uint64_t address;
};

static void send_region(int socket, const struct region *region)
{
    NEED(write(socket, region, sizeof *region) == sizeof *region, "write: %s", strerror(errno));
}

static void receive_region(int socket, struct region *region)
{
    NEED(read(socket, region, sizeof *region) == sizeof *region, "the other process has exited");
}

static void expect_error(int error, int expected, const char *call_name)
{
    NEED(error == expected, "%s: %s, and not %s", call_name, name_of(error), name_of(expected));
}

/* Stores the keys and the address of a region in `found`. */
static int query_mr(uint32_t handle, struct region *found)
{
    uint64_t length = 0;
    struct message message = begin(UVERBS_OBJECT_MR, UVERBS_METHOD_QUERY_MR);
    add(&message, UVERBS_ATTR_QUERY_MR_HANDLE, 0, handle);
    add_pointer(&message, UVERBS_ATTR_QUERY_MR_RESP_LKEY, &found->lkey, sizeof found->lkey);
    add_pointer(&message, UVERBS_ATTR_QUERY_MR_RESP_RKEY, &found->rkey, sizeof found->rkey);
    add_pointer(&message, UVERBS_ATTR_QUERY_MR_RESP_LENGTH, &length, sizeof length);
    add_pointer(&message, UVERBS_ATTR_QUERY_MR_RESP_IOVA, &found->address, sizeof found->address);
    return call(&message);
}

/* Calls a method whose attribute 0 is the handle. */
static int destroy(int object, int method, uint32_t handle)
{
    struct message message = begin(object, method);
    add(&message, 0, 0, handle);
    return call(&message);
}

static uint32_t count_protection_domains(void)
{
    uint32_t total = 0, handles[16];
    struct message message = begin(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_INFO_HANDLES);
    add(&message, UVERBS_ATTR_INFO_OBJECT_ID, 8, UVERBS_OBJECT_PD);
    add_pointer(&message, UVERBS_ATTR_INFO_TOTAL_HANDLES, &total, sizeof total);
    add_pointer(&message, UVERBS_ATTR_INFO_HANDLES_LIST, handles, sizeof handles);
    expect_error(call(&message), 0, "INFO_HANDLES");
    return total;
}

/* ---- the importer ---- */

static struct rxe_queue_buf *map(const struct mminfo *queue)
{
    void *memory = mmap(NULL, queue->size, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)queue->offset);
    NEED(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    return memory;
}

/* `qp`: the last created queue pair. */
static void connect_to_itself(uint32_t qp)
{
    struct ib_uverbs_gid_entry entry = {0};
    struct message message = begin(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_GID_ENTRY);
    add(&message, UVERBS_ATTR_QUERY_GID_ENTRY_PORT, 8, 1);
    add(&message, UVERBS_ATTR_QUERY_GID_ENTRY_GID_INDEX, 8, 1);
    add(&message, UVERBS_ATTR_QUERY_GID_ENTRY_FLAGS, 4, 0);
    add_pointer(&message, UVERBS_ATTR_QUERY_GID_ENTRY_RESP_ENTRY, &entry, sizeof entry);
    expect_error(call(&message), 0, "QUERY_GID_ENTRY");
    struct ib_uverbs_modify_qp modify = {.qp_handle = qp,
                                         .dest = {.sgid_index = 1, .hop_limit = 64, .is_global = 1, .port_num = 1},
                                         .dest_qp_num = qp_number,
                                         .qp_access_flags = RIGHTS,
                                         .path_mtu = IBV_MTU_1024,
                                         .max_rd_atomic = 1,
                                         .max_dest_rd_atomic = 1,
                                         .min_rnr_timer = 1,
                                         .port_num = 1,
                                         .timeout = 14,
                                         .retry_cnt = 7,
                                         .rnr_retry = 7};
    memcpy(modify.dest.dgid, &entry.gid, sizeof modify.dest.dgid);
    static const struct {
        enum ibv_qp_state state;
        int attributes;
    } steps[] = {{IBV_QPS_INIT, IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS},
                 {IBV_QPS_RTR, IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                                   IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER},
                 {IBV_QPS_RTS, IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                                   IBV_QP_MAX_QP_RD_ATOMIC}};
    for (size_t i = 0; i < LENGTH(steps); i++) {
        modify.qp_state = steps[i].state;
        modify.attr_mask = IBV_QP_STATE | steps[i].attributes;
        expect_error(INVOKE_NO_OUT(IB_USER_VERBS_CMD_MODIFY_QP, modify), 0, "MODIFY_QP");
    }
}

/*
 * Creates a CQ and a queue pair in the exporter's context, and WRITEs from the first half of the importer's region to
 * the second half. `pd`: of the exporter.
 */
static void write_by_mapped_queues(uint32_t pd, const struct region *own_region, uint8_t *memory)
{
    uint32_t cq = some_cq(), qp;
    struct rxe_queue_buf *completions = map(&cq_queue.mi);
    struct qp_spec spec = spec_of(IBV_QPT_RC, pd, cq);
    expect_error(qp_create(&spec, &qp), 0, "QP_CREATE");
    struct rxe_queue_buf *send_queue = map(&qp_queues.sq_mi);
    connect_to_itself(qp);
    struct rxe_send_wqe *wqe = (struct rxe_send_wqe *)send_queue->data;
    *wqe = (struct rxe_send_wqe){.wr = {.wr_id = 77,
                                        .opcode = IBV_WR_RDMA_WRITE,
                                        .send_flags = IBV_SEND_SIGNALED,
                                        .wr.rdma = {.remote_addr = own_region->address + PAGE / 2,
                                                    .rkey = own_region->rkey}},
                                 .dma = {.length = PAGE / 2, .resid = PAGE / 2, .num_sge = 1}};
    wqe->dma.sge[0] = (struct rxe_sge){.addr = own_region->address, .length = PAGE / 2, .lkey = own_region->lkey};
    memset(memory, ANSWER, PAGE / 2);
    __atomic_store_n(&send_queue->producer_index, 1, __ATOMIC_RELEASE);
    struct {
        struct ib_uverbs_cmd_hdr header;
        struct ib_uverbs_post_send body;
    } doorbell = {{IB_USER_VERBS_CMD_POST_SEND, sizeof doorbell / 4, 1}, /* lengths of command and response in words */
                  {.qp_handle = qp, .wqe_size = sizeof(struct ib_uverbs_send_wr)}};
    struct ib_uverbs_post_send_resp bad;
    doorbell.body.response = (uintptr_t)&bad;
    NEED(write(device, &doorbell, sizeof doorbell) == sizeof doorbell, "the doorbell: %s", strerror(errno));
    while (__atomic_load_n(&completions->producer_index, __ATOMIC_ACQUIRE) == 0)
        ;
    const struct ib_uverbs_wc *wc = (const struct ib_uverbs_wc *)completions->data;
    NEED(wc->wr_id == 77 && wc->status == IBV_WC_SUCCESS, "the importer's WRITE: %s", ibv_wc_status_str(wc->status));
    NEED(memory[PAGE - 1] == ANSWER, "the importer's WRITE has not arrived");
    memset(memory, PATTERN, PAGE);
    uint32_t events_reported;
    expect_error(destroy(UVERBS_OBJECT_CQ, UVERBS_METHOD_CQ_DESTROY, cq), EINVAL,
                 "CQ_DESTROY without its response");
    struct message message = begin(UVERBS_OBJECT_QP, UVERBS_METHOD_QP_DESTROY);
    add(&message, UVERBS_ATTR_DESTROY_QP_HANDLE, 0, qp);
    add_pointer(&message, UVERBS_ATTR_DESTROY_QP_RESP, &events_reported, sizeof events_reported);
    expect_error(call(&message), 0, "QP_DESTROY");
}

static void check_imported_context(const struct region *exported)
{
    struct region found = {0};
    uint32_t vectors = 0;
    uint64_t support = 0;
    struct message message = begin(UVERBS_OBJECT_DEVICE, UVERBS_METHOD_QUERY_CONTEXT);
    add_pointer(&message, UVERBS_ATTR_QUERY_CONTEXT_NUM_COMP_VECTORS, &vectors, sizeof vectors);
    add_pointer(&message, UVERBS_ATTR_QUERY_CONTEXT_CORE_SUPPORT, &support, sizeof support);
    expect_error(call(&message), 0, "QUERY_CONTEXT");
    NEED(vectors == exported->vectors && support == IB_UVERBS_CORE_SUPPORT_OPTIONAL_MR_ACCESS,
         "%u vectors, support %lx", vectors, (unsigned long)support);
    expect_error(query_mr(exported->mr, &found), 0, "QUERY_MR");
    NEED(found.lkey == exported->lkey && found.rkey == exported->rkey && found.address == exported->address,
         "QUERY_MR returns another region");
    expect_error(query_mr(exported->pd, &found), EINVAL, "QUERY_MR of a PD");
    expect_error(destroy(UVERBS_OBJECT_PD, UVERBS_METHOD_PD_DESTROY, exported->pd), EBUSY, "the PD in use");
    message = begin(UVERBS_OBJECT_ASYNC_EVENT, UVERBS_METHOD_ASYNC_EVENT_ALLOC);
    add(&message, UVERBS_ATTR_ASYNC_EVENT_ALLOC_FD_HANDLE, 0, 0);
    expect_error(call(&message), 0, "ASYNC_EVENT_ALLOC");
}

static void check_new_context(const struct region *exported)
{
    const int imported = device;
    struct region found;
    device = -1;
    open_context();
    NEED(count_protection_domains() == 0, "PDs in a new context");
    expect_error(query_mr(exported->mr, &found), ENOENT, "QUERY_MR in another context");
    close(device);
    device = imported;
}

static void import_context(int socket, const char *mode)
{
    struct region exported, own_region;
    receive_fds(socket, &device, 1);
    receive_region(socket, &exported);
    if (strcmp(mode, "outlive") == 0) {
        char byte;
        NEED(read(socket, &byte, 1) == 0, "the exporter still runs");
        check_imported_context(&exported);
        alloc_pd();
        NEED(count_protection_domains() == ALL_PDS, "%u PDs", count_protection_domains());
        return;
    }
    check_imported_context(&exported);
    check_new_context(&exported);
    /* A region in the exporter's PD, and a PD, both of the importer. */
    uint8_t *memory = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(memory, PATTERN, PAGE);
    own_region = (struct region){.pd = alloc_pd(), .address = (uintptr_t)memory};
    expect_error(reg_mr(exported.pd, own_region.address, PAGE, own_region.address, RIGHTS, &own_region.mr), 0,
                 "REG_MR");
    expect_error(query_mr(own_region.mr, &own_region), 0, "QUERY_MR of the importer's region");
    write_by_mapped_queues(exported.pd, &own_region, memory);
    expect_error(destroy(UVERBS_OBJECT_MR, UVERBS_METHOD_MR_DESTROY, exported.second_mr), 0,
                 "the exporter's second region");
    send_region(socket, &own_region);
    receive_region(socket, &exported);
    NEED(memory[0] == ANSWER && memory[PAGE - 1] == ANSWER, "the exporter's WRITE has not arrived");
    /* ibv_unimport_* would make no kernel call. */
    close(device);
}

/* ---- the exporter ---- */

static enum ibv_wc_status transfer(struct endpoint *end, enum ibv_wr_opcode opcode, const struct region *to)
{
    struct ibv_sge sge = {.addr = (uintptr_t)end->buffer, .length = PAGE, .lkey = end->mr->lkey};
    struct ibv_send_wr *bad, send = {.sg_list = &sge,
                                     .num_sge = 1,
                                     .opcode = opcode,
                                     .send_flags = IBV_SEND_SIGNALED,
                                     .wr.rdma = {to->address, to->rkey}};
    struct ibv_wc wc;
    NEED(ibv_post_send(end->qp, &send, &bad) == 0, "ibv_post_send: %s", strerror(errno));
    while (next_completion(end, &wc) == 0)
        ;
    return wc.status;
}

static void check_shared(int socket, pid_t importer, struct endpoint *from, const struct region *exported)
{
    struct region theirs, found;
    int status;
    receive_region(socket, &theirs);
    NEED(count_protection_domains() == ALL_PDS, "%u PDs", count_protection_domains());
    expect_error(query_mr(exported->second_mr, &found), ENOENT, "the region that the importer has destroyed");
    expect_error(query_mr(theirs.mr, &found), 0, "the importer's region");
    NEED(found.rkey == theirs.rkey, "the importer's region is another one");
    NEED(transfer(from, IBV_WR_RDMA_READ, &theirs) == IBV_WC_SUCCESS, "READ of the importer's memory");
    NEED(from->buffer[0] == PATTERN && from->buffer[PAGE - 1] == PATTERN,
         "the READ has other bytes than the importer wrote");
    memset(from->buffer, ANSWER, PAGE);
    NEED(transfer(from, IBV_WR_RDMA_WRITE, &theirs) == IBV_WC_SUCCESS, "WRITE to the importer's memory");
    send_region(socket, exported);
    NEED(waitpid(importer, &status, 0) == importer && status == 0, "the importer: status %x", status);
    /* The importer's objects belong to the context, which remains. */
    expect_error(query_mr(exported->mr, &found), 0, "the exporter's region after the importer's end");
    expect_error(query_mr(theirs.mr, &found), 0, "the importer's region after its end");
    expect_error(destroy(UVERBS_OBJECT_PD, UVERBS_METHOD_PD_DESTROY, exported->pd), EBUSY, "the PD in use");
    expect_error(destroy(UVERBS_OBJECT_MR, UVERBS_METHOD_MR_DESTROY, theirs.mr), 0, "the importer's region");
    expect_error(destroy(UVERBS_OBJECT_PD, UVERBS_METHOD_PD_DESTROY, theirs.pd), 0, "the importer's PD");
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "take") == 0) {
        import_context(atoi(argv[3]), argv[2]);
        return 0;
    }
    const bool outlives = argc > 1 && strcmp(argv[1], "outlive") == 0;
    NEED(outlives || (argc > 1 && strcmp(argv[1], "share") == 0), "usage: %s share [USER] | outlive", argv[0]);
    const struct options options = default_options;
    int pair[2];
    NEED(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair: %s", strerror(errno));
    struct ibv_context *context = open_named(NULL);
    struct endpoint from, to;
    create_pair(&from, &to, context, &options);
    device = context->cmd_fd;
    struct ibv_pd *pd = ibv_alloc_pd(context);
    NEED(pd, "ibv_alloc_pd: %s", strerror(errno));
    struct ibv_mr *second_mr = ibv_reg_mr(pd, from.buffer, PAGE, RIGHTS);
    NEED(second_mr, "ibv_reg_mr: %s", strerror(errno));
    const struct region exported = {.pd = to.pd->handle,
                                    .mr = to.mr->handle,
                                    .second_mr = second_mr->handle,
                                    .lkey = to.mr->lkey,
                                    .rkey = to.mr->rkey,
                                    .vectors = (uint32_t)context->num_comp_vectors,
                                    .address = (uintptr_t)to.buffer};
    fflush(stdout);
    const pid_t child_pid = fork();
    NEED(child_pid >= 0, "fork: %s", strerror(errno));
    /* For `outlive` the child is the exporter, which is killed: the test waits for the parent. */
    const bool is_importer = outlives ? child_pid != 0 : child_pid == 0;
    if (is_importer) {
        char socket[16];
        snprintf(socket, sizeof socket, "%d", pair[0]);
        close(pair[1]);
        close(context->cmd_fd);
        NEED(argc < 3 || (setgid((gid_t)atoi(argv[2])) == 0 && setuid((uid_t)atoi(argv[2])) == 0), "setuid: %s",
             strerror(errno));
        execl("/proc/self/exe", argv[0], "take", argv[1], socket, (char *)NULL);
        _exit(127);
    }
    close(pair[0]);
    send_fds(pair[1], &device, 1);
    send_region(pair[1], &exported);
    if (outlives)
        raise(SIGKILL);
    check_shared(pair[1], child_pid, &from, &exported);
    NEED(ibv_dealloc_pd(pd) == 0, "ibv_dealloc_pd: %s", strerror(errno));
    destroy_endpoint(&from);
    destroy_endpoint(&to);
    NEED(ibv_close_device(context) == 0, "ibv_close_device: %s", strerror(errno));
    puts("shared");
    return 0;
}
