/*
 * How long calls with the largest arguments make other programs wait: calls of one process on DEVICE, while another one
 * exchanges messages with itself on OTHER. Prints for each call the microseconds that the daemon worked at most between
 * two polls of its devices or turns of its event loop: the time for which a program waits on an idle machine. The
 * device of test/system/turns/turns.mjs measures it, and writes it to FILE.
 *
 *   longest_calls DEVICE OTHER FILE
 */
#include "../endpoint.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define USAGE "usage: longest_calls DEVICE OTHER FILE"
#define LARGE ((size_t)1 << 36)
#define TOUCHED ((size_t)1 << 29)

#define PHASES 64

/* FILE, which all share. */
static struct {
    volatile int64_t phase;
    volatile double longest[PHASES];
    volatile unsigned long rounds;
    volatile bool is_ready;
} *shared;

static const char *names[PHASES];

/* Sends to its own UD queue pair, and waits for the message, without end. */
static void exchange(const char *name)
{
    struct ibv_context *context = open_named(name);
    struct ibv_pd *pd = ibv_alloc_pd(context);
    struct ibv_cq *cq = ibv_create_cq(context, 16, NULL, NULL, 0);
    static char buffer[4096];
    struct ibv_mr *mr = ibv_reg_mr(pd, buffer, sizeof buffer, IBV_ACCESS_LOCAL_WRITE);
    struct ibv_qp_init_attr init = {.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_UD, .sq_sig_all = 1};
    init.cap.max_send_wr = init.cap.max_recv_wr = init.cap.max_send_sge = init.cap.max_recv_sge = 1;
    struct ibv_qp *qp = ibv_create_qp(pd, &init);
    NEED(qp && mr, "the other program: %s", strerror(errno));
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 1};
    int error = ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY);
    attr.qp_state = IBV_QPS_RTR;
    error |= ibv_modify_qp(qp, &attr, IBV_QP_STATE);
    attr.qp_state = IBV_QPS_RTS;
    error |= ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN);
    struct ibv_ah_attr to = {.is_global = 1, .port_num = 1, .grh = {.hop_limit = 64, .sgid_index = 1}};
    error |= ibv_query_gid(context, 1, 1, &to.grh.dgid);
    struct ibv_ah *ah = ibv_create_ah(pd, &to);
    NEED(error == 0 && ah, "the other program: its queue pair");
    struct ibv_sge sge = {.addr = (uintptr_t)buffer, .length = 64, .lkey = mr->lkey};
    struct ibv_recv_wr receive = {.sg_list = &sge, .num_sge = 1}, *bad_receive;
    struct ibv_sge received = {.addr = (uintptr_t)buffer + 1024, .length = 1024, .lkey = mr->lkey};
    receive.sg_list = &received;
    struct ibv_send_wr send = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND}, *bad_send;
    send.wr.ud.ah = ah;
    send.wr.ud.remote_qpn = qp->qp_num;
    send.wr.ud.remote_qkey = 1;
    shared->is_ready = true;
    for (;;) {
        ibv_post_recv(qp, &receive, &bad_receive);
        ibv_post_send(qp, &send, &bad_send);
        struct ibv_wc completions[2];
        for (int done = 0; done < 2;) {
            const int count = ibv_poll_cq(cq, 2, completions);
            for (int i = 0; i < count; i++)
                NEED(completions[i].status == IBV_WC_SUCCESS, "the other program: status %d", completions[i].status);
            done += count;
        }
        shared->rounds++;
    }
}

static void until_rounds(unsigned long count)
{
    for (const unsigned long end = shared->rounds + count; shared->rounds < end;)
        usleep(100);
}

/* Measures what the next call costs others. The other program does whole exchanges before and after it. */
static void begin(const char *name)
{
    until_rounds(4);
    names[shared->phase + 1] = name;
    shared->phase++;
    until_rounds(4);
}

static void *reserve(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    NEED(memory != MAP_FAILED, "mmap: %s", strerror(errno));
    return memory;
}

/* The device does not have the call. */
static void absent(void)
{
    names[shared->phase] = NULL;
}

static void queue_pair(struct ibv_pd *pd, struct ibv_cq *cq, enum ibv_qp_type type, uint32_t most, const char *const calls[2])
{
    struct ibv_qp_init_attr init = {.send_cq = cq, .recv_cq = cq, .qp_type = type};
    init.cap.max_send_wr = init.cap.max_recv_wr = most;
    init.cap.max_send_sge = init.cap.max_recv_sge = 1;
    begin(calls[0]);
    struct ibv_qp *qp = ibv_create_qp(pd, &init);
    while (!qp && init.cap.max_send_wr > 1) {
        init.cap.max_send_wr /= 2; /* the limit is of smaller requests */
        qp = ibv_create_qp(pd, &init);
    }
    if (!qp)
        return absent();
    begin(calls[1]);
    NEED(ibv_destroy_qp(qp) == 0, "ibv_destroy_qp");
}

static void work_queue(struct ibv_context *context, struct ibv_pd *pd, struct ibv_cq *cq, uint32_t most)
{
    struct ibv_wq_init_attr init = {.wq_type = IBV_WQT_RQ, .max_wr = most, .max_sge = 1, .pd = pd, .cq = cq};
    begin("wq.create");
    struct ibv_wq *wq = ibv_create_wq(context, &init);
    if (!wq)
        return absent();
    begin("wq.destroy");
    NEED(ibv_destroy_wq(wq) == 0, "ibv_destroy_wq");
}

static void device_memory(struct ibv_context *context)
{
    struct ibv_device_attr_ex attr;
    NEED(ibv_query_device_ex(context, NULL, &attr) == 0, "ibv_query_device_ex");
    struct ibv_alloc_dm_attr init = {.length = attr.max_dm_size};
    begin("dm.create");
    struct ibv_dm *dm = attr.max_dm_size ? ibv_alloc_dm(context, &init) : NULL;
    if (!dm)
        return absent();
    begin("dm.destroy");
    NEED(ibv_free_dm(dm) == 0, "ibv_free_dm");
}

static void queues(struct ibv_context *context, struct ibv_pd *pd)
{
    struct ibv_device_attr attr;
    NEED(ibv_query_device(context, &attr) == 0, "ibv_query_device");
    begin("cq.create");
    struct ibv_cq *cq = ibv_create_cq(context, attr.max_cqe, NULL, NULL, 0);
    NEED(cq, "ibv_create_cq of %d: %s", attr.max_cqe, strerror(errno));
    begin("cq.destroy");
    NEED(ibv_destroy_cq(cq) == 0, "ibv_destroy_cq");
    begin("cq.create, refused");
    NEED(!ibv_create_cq(context, attr.max_cqe, NULL, NULL, 99), "ibv_create_cq with vector 99");
    begin("cq.modify");
    cq = ibv_create_cq(context, 1, NULL, NULL, 0);
    if (ibv_resize_cq(cq, attr.max_cqe) != 0)
        absent();
    begin("cq.destroy, resized");
    NEED(ibv_destroy_cq(cq) == 0, "ibv_destroy_cq");
    cq = ibv_create_cq(context, 1, NULL, NULL, 0);
    const uint32_t most = (uint32_t)attr.max_qp_wr;
    queue_pair(pd, cq, IBV_QPT_RC, most, (const char *const[]){"rc_qp.create", "rc_qp.destroy"});
    queue_pair(pd, cq, IBV_QPT_UD, most, (const char *const[]){"ud_qp.create", "ud_qp.destroy"});
    struct ibv_srq_init_attr shared_init = {.attr = {.max_wr = (uint32_t)attr.max_srq_wr, .max_sge = 1}};
    begin("srq.create");
    struct ibv_srq *srq = attr.max_srq > 0 ? ibv_create_srq(pd, &shared_init) : NULL;
    NEED(srq || attr.max_srq == 0, "ibv_create_srq of %d: %s", attr.max_srq_wr, strerror(errno));
    if (srq) {
        begin("srq.destroy");
        NEED(ibv_destroy_srq(srq) == 0, "ibv_destroy_srq");
    } else
        absent();
    work_queue(context, pd, cq, most);
    ibv_destroy_cq(cq);
    device_memory(context);
}

static void on_demand(struct ibv_pd *pd, char *memory)
{
    begin("mr.create of 64 GiB on demand");
    struct ibv_mr *mr = ibv_reg_mr(pd, memory, LARGE, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_ON_DEMAND);
    if (!mr)
        return absent();
    struct ibv_sge all = {.addr = (uintptr_t)memory, .length = TOUCHED, .lkey = mr->lkey};
    begin("pd.advise of 512 MiB");
    if (ibv_advise_mr(pd, IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, IBV_ADVISE_MR_FLAG_FLUSH, &all, 1) != 0)
        absent(); /* libibverbs' provider of rxe lacks it */
    begin("mr.destroy of 64 GiB on demand");
    NEED(ibv_dereg_mr(mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
}

static void regions(struct ibv_pd *pd)
{
    char *memory = reserve(LARGE);
    begin("mr.create of 64 GiB");
    struct ibv_mr *mr = ibv_reg_mr(pd, memory, LARGE, IBV_ACCESS_LOCAL_WRITE);
    NEED(mr, "ibv_reg_mr of 64 GiB: %s", strerror(errno));
    begin("mr.modify of 64 GiB");
    if (ibv_rereg_mr(mr, IBV_REREG_MR_CHANGE_ACCESS, NULL, NULL, 0, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ) != 0)
        absent();
    begin("mr.destroy of 64 GiB");
    NEED(ibv_dereg_mr(mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
    on_demand(pd, memory);
    memset(memory, 1, TOUCHED);
    begin("mr.create of 512 MiB in memory");
    mr = ibv_reg_mr(pd, memory, TOUCHED, IBV_ACCESS_LOCAL_WRITE);
    NEED(mr, "ibv_reg_mr of 512 MiB: %s", strerror(errno));
    begin("munmap of a region");
    munmap(memory, LARGE);
    begin("mr.destroy of a stale region");
    NEED(ibv_dereg_mr(mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
    /* Each second page is read-only, so each is a mapping. */
    const size_t pages = 30000;
    memory = reserve(pages * 4096);
    for (size_t i = 0; i < pages; i += 2)
        NEED(mprotect(memory + i * 4096, 4096, PROT_READ) == 0, "mprotect: %s", strerror(errno));
    begin("mr.create of 30,000 mappings");
    mr = ibv_reg_mr(pd, memory, pages * 4096, IBV_ACCESS_REMOTE_READ);
    NEED(mr, "ibv_reg_mr of many mappings: %s", strerror(errno));
    begin("mr.destroy of 30,000 mappings");
    NEED(ibv_dereg_mr(mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
    begin("mr.create of 30,000 mappings, refused");
    munmap(memory + (pages - 1) * 4096, 4096);
    NEED(!ibv_reg_mr(pd, memory, pages * 4096, IBV_ACCESS_REMOTE_READ), "ibv_reg_mr with a hole");
    munmap(memory, pages * 4096);
}

static bool has_largest_cq(struct ibv_context *context)
{
    struct ibv_device_attr attr;
    ibv_query_device(context, &attr);
    return ibv_create_cq(context, attr.max_cqe, NULL, NULL, 0);
}

static bool has_large_region(struct ibv_context *context)
{
    char *memory = reserve(LARGE);
    memset(memory, 1, TOUCHED);
    return ibv_reg_mr(ibv_alloc_pd(context), memory, LARGE, IBV_ACCESS_LOCAL_WRITE);
}

/* A process that ends with a large object. */
static void leave(const char *device, const char *name, bool (*create)(struct ibv_context *context))
{
    begin(name);
    const pid_t child = fork();
    if (child == 0)
        _exit(create(open_named(device)) ? 0 : 1);
    int status;
    waitpid(child, &status, 0);
    NEED(status == 0, "the process that ends: status %d", status);
    until_rounds(100);
}

int main(int argc, char **argv)
{
    NEED(argc == 4, USAGE);
    const int file = open(argv[3], O_RDWR);
    NEED(file >= 0 && ftruncate(file, sizeof *shared) == 0, "%s: %s", argv[3], strerror(errno));
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    NEED(shared != MAP_FAILED, "mmap: %s", strerror(errno));
    const pid_t other = fork();
    if (other == 0)
        exchange(argv[2]);
    while (!shared->is_ready && waitpid(other, NULL, WNOHANG) == 0)
        usleep(1000);
    leave(argv[1], "end of a process with the largest cq", has_largest_cq);
    leave(argv[1], "end of a process with a region of 64 GiB", has_large_region);
    struct ibv_context *context = open_named(argv[1]);
    struct ibv_pd *pd = ibv_alloc_pd(context);
    queues(context, pd);
    regions(pd);
    begin("end");
    kill(other, SIGKILL);
    for (int i = 1; i < (int)shared->phase; i++)
        if (names[i])
            printf("%.0f %s\n", shared->longest[i], names[i]);
    return 0;
}
