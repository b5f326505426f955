/*
 * Calls functions of libibverbs, among them those that some providers or devices lack, and prints results as
 * test/programs/uverbs/every_call.c does.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>

#include "../endpoint.h"

/* Prints a call and its result; returns whether it succeeded. */
__attribute__((format(printf, 2, 3))) static bool print_result(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    const char *name = strerrorname_np(error);
    printf(" = %s\n", error == 0 ? "OK" : name ? name : "?");
    fflush(stdout);
    return error == 0;
}

#define PRINT_OBJECT(object, ...) print_result((object) ? 0 : errno, __VA_ARGS__)
/* Some functions return an errno, some -1, some minus an errno. */
static int errno_of(int result)
{
    return result == 0 ? 0 : result == -1 ? errno : abs(result);
}
#define PRINT_NUMBER(result, ...) print_result((errno = 0, errno_of(result)), __VA_ARGS__)

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static uint8_t *pages;

#define RIGHTS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE)

static void contexts(void)
{
    PRINT_OBJECT(ibv_import_device(context->cmd_fd), "ibv_import_device");
    PRINT_OBJECT(ibv_import_pd(context, pd->handle), "ibv_import_pd");
    PRINT_OBJECT(ibv_import_mr(pd, 0), "ibv_import_mr");
    PRINT_OBJECT(ibv_import_dm(context, 0), "ibv_import_dm");
    struct ibv_td_init_attr thread = {0};
    struct ibv_td *td = ibv_alloc_td(context, &thread);
    PRINT_OBJECT(td, "ibv_alloc_td");
    struct ibv_parent_domain_init_attr parent = {.pd = pd};
    PRINT_OBJECT(ibv_alloc_parent_domain(context, &parent), "ibv_alloc_parent_domain");
    struct ibv_values_ex clock = {.comp_mask = IBV_VALUES_MASK_RAW_CLOCK};
    PRINT_NUMBER(ibv_query_rt_values_ex(context, &clock), "ibv_query_rt_values_ex");
    struct ibv_device_attr_ex attributes;
    PRINT_NUMBER(ibv_query_device_ex(context, NULL, &attributes), "ibv_query_device_ex");
    printf("  odp %#lx timestamps %#lx clock %lu raw %#x dm %lu moderation %u tags %u\n",
           (unsigned long)attributes.odp_caps.general_caps, (unsigned long)attributes.completion_timestamp_mask,
           (unsigned long)attributes.hca_core_clock, attributes.raw_packet_caps, (unsigned long)attributes.max_dm_size,
           attributes.cq_mod_caps.max_cq_count, attributes.tm_caps.max_num_tags);
    struct ibv_gid_entry entry, entries[64];
    PRINT_NUMBER(ibv_query_gid_ex(context, 1, 0, &entry, 0), "ibv_query_gid_ex");
    PRINT_NUMBER(ibv_query_gid_ex(context, 1, 1023, &entry, 0), "ibv_query_gid_ex of an empty entry");
    PRINT_NUMBER(ibv_query_gid_ex(context, 1, 0, &entry, 1), "ibv_query_gid_ex with flags");
    ssize_t gids = ibv_query_gid_table(context, entries, 64, 0);
    print_result(gids > 0 ? 0 : gids == 0 ? ENODATA : (int)-gids, "ibv_query_gid_table");
    __be16 pkey;
    PRINT_NUMBER(ibv_query_pkey(context, 1, 0, &pkey), "ibv_query_pkey");
    PRINT_NUMBER(ibv_query_pkey(context, 1, 1, &pkey), "ibv_query_pkey of entry 1");
    struct ibv_counters_init_attr counting = {0};
    PRINT_OBJECT(ibv_create_counters(context, &counting), "ibv_create_counters");
    struct ibv_alloc_dm_attr memory = {.length = 4096};
    PRINT_OBJECT(ibv_alloc_dm(context, &memory), "ibv_alloc_dm");
    struct ibv_xrcd_init_attr domain = {
        .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = -1, .oflags = O_CREAT};
    PRINT_OBJECT(ibv_open_xrcd(context, &domain), "ibv_open_xrcd");
}

static void regions(void)
{
    for (int bit = 0; bit < 30; bit++) {
        struct ibv_mr *mr = ibv_reg_mr(pd, pages, 4096, IBV_ACCESS_LOCAL_WRITE | 1 << bit);
        if (PRINT_OBJECT(mr, "ibv_reg_mr, local write and %#x", 1 << bit))
            ibv_dereg_mr(mr);
    }
    PRINT_OBJECT(ibv_reg_mr(pd, NULL, SIZE_MAX, IBV_ACCESS_ON_DEMAND), "ibv_reg_mr of everything");
    PRINT_OBJECT(ibv_reg_mr_iova(pd, pages, 4096, 0, RIGHTS), "ibv_reg_mr_iova of 0");
    PRINT_OBJECT(ibv_reg_mr_iova(pd, pages, 4096, 8, RIGHTS), "ibv_reg_mr_iova of 8");
    PRINT_OBJECT(ibv_alloc_null_mr(pd), "ibv_alloc_null_mr");
    PRINT_OBJECT(ibv_reg_dmabuf_mr(pd, 0, 4096, 0, memfd_create("pages", 0), RIGHTS), "ibv_reg_dmabuf_mr");
    struct ibv_mr *mr = ibv_reg_mr(pd, pages, 4096, RIGHTS);
    NEED(mr, "ibv_reg_mr: %s", strerror(errno));
    for (int flags = 0; flags < 16; flags++)
        print_result(ibv_rereg_mr(mr, flags, pd, pages, 4096, RIGHTS) == 0 ? 0 : errno, "ibv_rereg_mr flags %d", flags);
    struct ibv_sge range = {.addr = (uintptr_t)pages, .length = 4096, .lkey = mr->lkey};
    for (int advice = 0; advice < 3; advice++)
        PRINT_NUMBER(ibv_advise_mr(pd, advice, 0, &range, 1), "ibv_advise_mr %d", advice);
    for (int type = 1; type <= 2; type++)
        PRINT_OBJECT(ibv_alloc_mw(pd, type), "ibv_alloc_mw %d", type);
}

static void completion_queues(void)
{
    for (int bit = 0; bit < 14; bit++) {
        struct ibv_cq_init_attr_ex init_attr = {.cqe = 10, .wc_flags = 1ull << bit};
        PRINT_OBJECT(ibv_create_cq_ex(context, &init_attr), "ibv_create_cq_ex, completions with %#x", 1 << bit);
    }
    for (int bit = 0; bit < 3; bit++) {
        struct ibv_cq_init_attr_ex init_attr = {
            .cqe = 10, .comp_mask = IBV_CQ_INIT_ATTR_MASK_FLAGS, .flags = 1u << bit};
        PRINT_OBJECT(ibv_create_cq_ex(context, &init_attr), "ibv_create_cq_ex, flags %#x", 1 << bit);
    }
    struct ibv_cq_init_attr_ex parented = {.cqe = 10, .comp_mask = IBV_CQ_INIT_ATTR_MASK_PD, .parent_domain = pd};
    PRINT_OBJECT(ibv_create_cq_ex(context, &parented), "ibv_create_cq_ex of a domain");
    struct ibv_modify_cq_attr moderation = {.attr_mask = IBV_CQ_ATTR_MODERATE, .moderate = {1, 1}};
    PRINT_NUMBER(ibv_modify_cq(cq, &moderation), "ibv_modify_cq");
    PRINT_NUMBER(ibv_resize_cq(cq, 100), "ibv_resize_cq to 100");
    PRINT_NUMBER(ibv_resize_cq(cq, 40000), "ibv_resize_cq to 40000");
}

static void queue_pairs(void)
{
    for (int type = 2; type <= 10; type++) {
        struct ibv_qp_init_attr init_attr = {
            .qp_type = type, .send_cq = cq, .recv_cq = cq, .cap = {.max_send_wr = 1, .max_send_sge = 1}};
        PRINT_OBJECT(ibv_create_qp(pd, &init_attr), "ibv_create_qp type %d", type);
    }
    /* Bits 11 and 12 are FLUSH and ATOMIC WRITE, which older libraries lack. */
    for (int bit = 0; bit < 11; bit++) {
        struct ibv_qp_init_attr_ex init_attr = {.qp_type = IBV_QPT_RC,
                                           .send_cq = cq,
                                           .recv_cq = cq,
                                           .cap = {.max_send_wr = 1, .max_send_sge = 1},
                                           .comp_mask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
                                           .pd = pd,
                                           .send_ops_flags = 1ull << bit};
        PRINT_OBJECT(ibv_create_qp_ex(context, &init_attr), "ibv_create_qp_ex, operations %#x", 1 << bit);
    }
    for (int bit = 0; bit < 8; bit++) {
        struct ibv_qp_init_attr_ex init_attr = {.qp_type = IBV_QPT_UD,
                                           .send_cq = cq,
                                           .recv_cq = cq,
                                           .cap = {.max_send_wr = 1, .max_send_sge = 1},
                                           .comp_mask = IBV_QP_INIT_ATTR_PD | 1 << bit,
                                           .pd = pd};
        if (1 << bit == IBV_QP_INIT_ATTR_RX_HASH || 1 << bit == IBV_QP_INIT_ATTR_IND_TABLE)
            continue;
        PRINT_OBJECT(ibv_create_qp_ex(context, &init_attr), "ibv_create_qp_ex, mask %#x", 1 << bit);
    }
    struct ibv_qp_init_attr init = {
        .qp_type = IBV_QPT_UD, .send_cq = cq, .recv_cq = cq, .cap = {.max_send_wr = 1, .max_send_sge = 1}};
    struct ibv_qp *qp = ibv_create_qp(pd, &init);
    NEED(qp, "ibv_create_qp: %s", strerror(errno));
    struct ibv_ece ece = {0};
    PRINT_NUMBER(ibv_query_ece(qp, &ece), "ibv_query_ece");
    PRINT_NUMBER(ibv_set_ece(qp, &ece), "ibv_set_ece with vendor_id 0");
    ece.vendor_id = 1;
    PRINT_NUMBER(ibv_set_ece(qp, &ece), "ibv_set_ece");
    struct ibv_qp_rate_limit_attr rate = {.rate_limit = 1000};
    PRINT_NUMBER(ibv_modify_qp_rate_limit(qp, &rate), "ibv_modify_qp_rate_limit");
    union ibv_gid group = {.raw = {[10] = 0xff, [11] = 0xff, [12] = 239, [15] = 7}};
    PRINT_NUMBER(ibv_attach_mcast(qp, &group, 0), "ibv_attach_mcast");
    PRINT_NUMBER(ibv_attach_mcast(qp, &group, 0), "ibv_attach_mcast again");
    PRINT_NUMBER(ibv_detach_mcast(qp, &group, 0), "ibv_detach_mcast");
    PRINT_NUMBER(ibv_detach_mcast(qp, &group, 0), "ibv_detach_mcast again");
    struct ibv_flow_attr flow = {.size = sizeof flow, .port = 1};
    PRINT_OBJECT(ibv_create_flow(qp, &flow), "ibv_create_flow");
    struct ibv_wq_init_attr work = {.max_wr = 1, .max_sge = 1, .pd = pd, .cq = cq};
    PRINT_OBJECT(ibv_create_wq(context, &work), "ibv_create_wq");
    struct ibv_rwq_ind_table_init_attr table = {0};
    PRINT_OBJECT(ibv_create_rwq_ind_table(context, &table), "ibv_create_rwq_ind_table");
    for (int type = 0; type < 3; type++) {
        struct ibv_srq_init_attr_ex init_attr = {.attr = {.max_wr = 10, .max_sge = 1},
                                            .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD,
                                            .srq_type = type,
                                            .pd = pd};
        struct ibv_srq *srq = ibv_create_srq_ex(context, &init_attr);
        if (!PRINT_OBJECT(srq, "ibv_create_srq_ex type %d", type))
            continue;
        uint32_t number;
        PRINT_NUMBER(ibv_get_srq_num(srq, &number), "ibv_get_srq_num");
        struct ibv_srq_attr limit = {.srq_limit = 5, .max_wr = 20};
        PRINT_NUMBER(ibv_modify_srq(srq, &limit, IBV_SRQ_LIMIT), "ibv_modify_srq limit");
        PRINT_NUMBER(ibv_modify_srq(srq, &limit, IBV_SRQ_MAX_WR), "ibv_modify_srq size");
        PRINT_NUMBER(ibv_modify_srq(srq, &limit, 4), "ibv_modify_srq unknown");
    }
}

int main(int argc, char **argv)
{
    NEED(argc == 1, "usage: %s", argv[0]);
    pages = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    context = open_named(NULL);
    pd = ibv_alloc_pd(context);
    cq = ibv_create_cq(context, 10, NULL, NULL, 0);
    NEED(pd && cq, "%s", strerror(errno));
    contexts();
    regions();
    completion_queues();
    queue_pairs();
    return 0;
}
