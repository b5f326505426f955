/*
 * What objects cost when there are many: creates COUNT objects of one kind, then destroys them, and prints the
 * microseconds of processor time that a call took, of the program and of the daemon's main thread, among the first and
 * the last thousand:
 *
 *   KIND COUNT create FIRST LAST destroy FIRST LAST
 *
 * A kind of which there are fewer than 2000 prints "KIND: ", the error and the number.
 *
 *   object_costs DEVICE COUNT DAEMON [KIND...]   DAEMON: its process; default: each kind
 */
#include "../endpoint.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <infiniband/efadv.h>
#include <sys/resource.h>
#include <time.h>

#define USAGE "usage: object_costs DEVICE COUNT DAEMON [KIND...]; COUNT: 2000 to 100000"
#define BLOCK 1000

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_xrcd *xrcd;
static struct ibv_wq *wq;
static union ibv_gid gid;
/* Of libefa, which not each machine has; NULL: the device is not EFA. */
static __typeof__(efadv_create_driver_qp) *create_driver_qp;
static char page[4096];

static void *create_pd(void)
{
    return ibv_alloc_pd(context);
}

static int destroy_pd(void *object)
{
    return ibv_dealloc_pd(object);
}

static void *create_parent(void)
{
    struct ibv_parent_domain_init_attr attr = {.pd = pd};
    return ibv_alloc_parent_domain(context, &attr);
}

static void *create_td(void)
{
    struct ibv_td_init_attr attr = {0};
    return ibv_alloc_td(context, &attr);
}

static int destroy_td(void *object)
{
    return ibv_dealloc_td(object);
}

static void *create_channel(void)
{
    return ibv_create_comp_channel(context);
}

static int destroy_channel(void *object)
{
    return ibv_destroy_comp_channel(object);
}

static void *create_cq(void)
{
    return ibv_create_cq(context, 1, NULL, NULL, 0);
}

static int destroy_cq(void *object)
{
    return ibv_destroy_cq(object);
}

static void *create_mr(void)
{
    return ibv_reg_mr(pd, page, sizeof page, IBV_ACCESS_LOCAL_WRITE);
}

static int destroy_mr(void *object)
{
    return ibv_dereg_mr(object);
}

static void *create_mw1(void)
{
    return ibv_alloc_mw(pd, IBV_MW_TYPE_1);
}

static void *create_mw2(void)
{
    return ibv_alloc_mw(pd, IBV_MW_TYPE_2);
}

static int destroy_mw(void *object)
{
    return ibv_dealloc_mw(object);
}

static void *create_ah(void)
{
    struct ibv_ah_attr attr = {.is_global = 1, .port_num = 1, .grh = {.dgid = gid, .hop_limit = 64}};
    return ibv_create_ah(pd, &attr);
}

static int destroy_ah(void *object)
{
    return ibv_destroy_ah(object);
}

static void *create_srq(void)
{
    struct ibv_srq_init_attr attr = {.attr = {.max_wr = 1, .max_sge = 1}};
    return ibv_create_srq(pd, &attr);
}

static int destroy_srq(void *object)
{
    return ibv_destroy_srq(object);
}

static void *create_tags(void)
{
    struct ibv_srq_init_attr_ex attr = {
        .attr = {.max_wr = 1, .max_sge = 1},
        .srq_type = IBV_SRQT_TM,
        .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD | IBV_SRQ_INIT_ATTR_CQ | IBV_SRQ_INIT_ATTR_TM,
        .pd = pd,
        .cq = cq,
        .tm_cap = {.max_num_tags = 4, .max_ops = 4},
    };
    return ibv_create_srq_ex(context, &attr);
}

static void *create_qp_of(enum ibv_qp_type type)
{
    struct ibv_qp_init_attr_ex attr = {
        .qp_type = type,
        .comp_mask = IBV_QP_INIT_ATTR_PD,
        .pd = pd,
        .send_cq = cq,
        .recv_cq = cq,
        .cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
    };
    if (type == IBV_QPT_XRC_SEND)
        attr.cap.max_recv_wr = attr.cap.max_recv_sge = 0;
    if (type == IBV_QPT_XRC_RECV) {
        attr.comp_mask = IBV_QP_INIT_ATTR_XRCD;
        attr.xrcd = xrcd;
    }
    return ibv_create_qp_ex(context, &attr);
}

static void *create_rc(void)
{
    return create_qp_of(IBV_QPT_RC);
}

static void *create_uc(void)
{
    return create_qp_of(IBV_QPT_UC);
}

static void *create_ud(void)
{
    return create_qp_of(IBV_QPT_UD);
}

static void *create_raw(void)
{
    return create_qp_of(IBV_QPT_RAW_PACKET);
}

static void *create_xrc_send(void)
{
    return create_qp_of(IBV_QPT_XRC_SEND);
}

static void *create_xrc_recv(void)
{
    if (!xrcd) {
        errno = EOPNOTSUPP;
        return NULL;
    }
    return create_qp_of(IBV_QPT_XRC_RECV);
}

static void *create_srd(void)
{
    struct ibv_qp_init_attr attr = {
        .qp_type = IBV_QPT_DRIVER,
        .send_cq = cq,
        .recv_cq = cq,
        .cap = {.max_send_wr = 1, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
    };
    if (!create_driver_qp) {
        errno = EOPNOTSUPP;
        return NULL;
    }
    return create_driver_qp(pd, &attr, EFADV_QP_DRIVER_TYPE_SRD);
}

static int destroy_qp(void *object)
{
    return ibv_destroy_qp(object);
}

static void *create_xrcd(void)
{
    struct ibv_xrcd_init_attr attr = {
        .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = -1, .oflags = O_CREAT};
    return ibv_open_xrcd(context, &attr);
}

static int destroy_xrcd(void *object)
{
    return ibv_close_xrcd(object);
}

static void *create_dm(void)
{
    struct ibv_alloc_dm_attr attr = {.length = 64};
    return ibv_alloc_dm(context, &attr);
}

static int destroy_dm(void *object)
{
    return ibv_free_dm(object);
}

static void *create_wq(void)
{
    struct ibv_wq_init_attr attr = {.wq_type = IBV_WQT_RQ, .max_wr = 1, .max_sge = 1, .pd = pd, .cq = cq};
    return ibv_create_wq(context, &attr);
}

static int destroy_wq(void *object)
{
    return ibv_destroy_wq(object);
}

static void *create_table(void)
{
    struct ibv_rwq_ind_table_init_attr attr = {.log_ind_tbl_size = 0, .ind_tbl = &wq};
    if (!wq)
        wq = create_wq();
    return wq ? ibv_create_rwq_ind_table(context, &attr) : NULL;
}

static int destroy_table(void *object)
{
    return ibv_destroy_rwq_ind_table(object);
}

static void *create_flow(void)
{
    static struct ibv_qp *qp;
    struct {
        struct ibv_flow_attr attr;
        struct ibv_flow_spec_eth eth;
    } flow = {
        .attr = {.type = IBV_FLOW_ATTR_NORMAL, .size = sizeof flow, .num_of_specs = 1, .port = 1},
        .eth = {.type = IBV_FLOW_SPEC_ETH, .size = sizeof flow.eth, .mask.dst_mac = {[0 ... 5] = 0xff}},
    };
    static unsigned number;
    number++;
    memcpy(flow.eth.val.dst_mac + 2, &number, sizeof number);
    if (!qp)
        qp = create_raw();
    return qp ? ibv_create_flow(qp, &flow.attr) : NULL;
}

static int destroy_flow(void *object)
{
    return ibv_destroy_flow(object);
}

static const struct kind {
    const char *name;
    void *(*create)(void);
    int (*destroy)(void *object);
} kinds[] = {
    {"pd", create_pd, destroy_pd},
    {"parent_domain", create_parent, destroy_pd},
    {"td", create_td, destroy_td},
    {"channel", create_channel, destroy_channel},
    {"cq", create_cq, destroy_cq},
    {"mr", create_mr, destroy_mr},
    {"mw1", create_mw1, destroy_mw},
    {"mw2", create_mw2, destroy_mw},
    {"ah", create_ah, destroy_ah},
    {"srq", create_srq, destroy_srq},
    {"srq_tm", create_tags, destroy_srq},
    {"rc", create_rc, destroy_qp},
    {"uc", create_uc, destroy_qp},
    {"ud", create_ud, destroy_qp},
    {"srd", create_srd, destroy_qp},
    {"xrc_send", create_xrc_send, destroy_qp},
    {"xrc_recv", create_xrc_recv, destroy_qp},
    {"xrcd", create_xrcd, destroy_xrcd},
    {"dm", create_dm, destroy_dm},
    {"wq", create_wq, destroy_wq},
    {"rwq_ind_table", create_table, destroy_table},
    {"raw", create_raw, destroy_qp},
    {"flow", create_flow, destroy_flow},
};

static int daemon_times;

/* Microseconds on a processor. */
static double now(void)
{
    struct timespec own;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
    char text[64] = "";
    NEED(pread(daemon_times, text, sizeof text - 1, 0) > 0, "the daemon's times: %s", strerror(errno));
    return (double)own.tv_sec * 1e6 + (double)own.tv_nsec / 1e3 + atof(text) / 1e3;
}

/* Microseconds of a call, from the times before and after each thousand of `count` calls. */
static void print_costs(const char *what, const double *ends, int count)
{
    const int last = count / BLOCK;
    printf(" %s %.2f %.2f", what, (ends[1] - ends[0]) / BLOCK, (ends[last] - ends[last - 1]) / BLOCK);
}

static void measure(const struct kind *kind, int wanted)
{
    void **objects = calloc((size_t)wanted, sizeof *objects);
    double *ends = calloc((size_t)(wanted / BLOCK) + 1, sizeof *ends);
    NEED(objects && ends, "calloc: %s", strerror(errno));
    int count = 0;
    ends[0] = now();
    while (count < wanted && (objects[count] = kind->create()))
        if (++count % BLOCK == 0)
            ends[count / BLOCK] = now();
    if (count < 2 * BLOCK) {
        printf("%s: %s after %d\n", kind->name, strerror(errno), count);
    } else {
        printf("%s %d", kind->name, count);
        print_costs("create", ends, count);
    }
    ends[0] = now();
    for (int i = 0; i < count; i++) {
        const int error = kind->destroy(objects[i]);
        NEED(error == 0, "%s: destroy: %s", kind->name, strerror(error));
        if ((i + 1) % BLOCK == 0)
            ends[(i + 1) / BLOCK] = now();
    }
    if (count >= 2 * BLOCK) {
        print_costs("destroy", ends, count);
        putchar('\n');
    }
    fflush(stdout);
    free(objects);
    free(ends);
}

static void find_driver_qp(void)
{
    void *libefa = dlopen("libefa.so.1", RTLD_NOW);
    __typeof__(efadv_query_device) *query = NULL;
    struct efadv_device_attr attr;
    if (libefa)
        *(void **)&query = dlsym(libefa, "efadv_query_device");
    if (query && query(context, &attr, sizeof attr) == 0)
        *(void **)&create_driver_qp = dlsym(libefa, "efadv_create_driver_qp");
}

int main(int argc, char **argv)
{
    const int count = argc > 2 ? atoi(argv[2]) : 0;
    NEED(count >= 2 * BLOCK && count <= 100000 && argc > 3, USAGE);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/schedstat", atoi(argv[3]));
    daemon_times = open(path, O_RDONLY);
    NEED(daemon_times >= 0, "%s: %s", path, strerror(errno));
    struct rlimit descriptors;
    getrlimit(RLIMIT_NOFILE, &descriptors);
    descriptors.rlim_cur = descriptors.rlim_max;
    setrlimit(RLIMIT_NOFILE, &descriptors);
    struct ibv_device **devices = ibv_get_device_list(NULL);
    NEED(devices, "ibv_get_device_list: %s", strerror(errno));
    while (*devices && strcmp(ibv_get_device_name(*devices), argv[1]) != 0)
        devices++;
    NEED(*devices, "no device %s", argv[1]);
    context = ibv_open_device(*devices);
    NEED(context, "ibv_open_device: %s", strerror(errno));
    find_driver_qp();
    pd = ibv_alloc_pd(context);
    cq = ibv_create_cq(context, 1, NULL, NULL, 0);
    NEED(pd && cq, "no protection domain or completion queue: %s", strerror(errno));
    NEED(ibv_query_gid(context, 1, 0, &gid) == 0, "ibv_query_gid: %s", strerror(errno));
    xrcd = create_xrcd();
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        bool is_wanted = argc == 4;
        for (int j = 4; j < argc; j++)
            is_wanted |= strcmp(argv[j], kinds[i].name) == 0;
        if (is_wanted)
            measure(&kinds[i], count);
    }
    return 0;
}
