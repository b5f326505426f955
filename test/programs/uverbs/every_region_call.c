/*
 * Makes the uverbs calls about memory, and prints results as every_call.c does.
 */
#include "uverbs_calls.h"

static int advise(uint32_t pd, uint64_t advice, uint32_t flags, const struct ib_uverbs_sge *list, int count)
{
    struct message message = begin(UVERBS_OBJECT_MR, UVERBS_METHOD_ADVISE_MR);
    add(&message, UVERBS_ATTR_ADVISE_MR_PD_HANDLE, 0, pd);
    add(&message, UVERBS_ATTR_ADVISE_MR_ADVICE, 8, advice);
    add(&message, UVERBS_ATTR_ADVISE_MR_FLAGS, 4, flags);
    add_in(&message, UVERBS_ATTR_ADVISE_MR_SGE_LIST, list, count * sizeof *list);
    return call(&message);
}

/* Access rights are IBV_ACCESS_* bits: 1 local write, 2 remote write, and so on. */
static void regions(void)
{
    open_context();
    uint32_t pd = alloc_pd(), other_pd = alloc_pd(), mr;
    for (int bit = -1; bit < 32; bit++) {
        uint32_t access = bit < 0 ? 0 : 1u << bit;
        int error = reg_mr(pd, pages_address(), PAGE, pages_address(), access, &mr);
        step(error, "REG_MR access %#x", access);
        if (error == 0)
            dereg_mr(mr);
    }
    static const struct {
        const char *name;
        uint64_t offset, length, iova;
        uint32_t access;
    } ranges[] = {
        {"length 0", 0, 0, 0, 1},
        {"length 0 within a page", 8, 0, 8, 1},
        {"iova of another offset", 8, 64, 16, 1},
        {"iova elsewhere", 8, 64, 0x10008, 1},
        {"addresses that wrap around", 0, -(uint64_t)PAGE, 0, 1},
        {"iova that wraps around", 0, PAGE, -(uint64_t)PAGE, 1},
        {"remote write, local write", 0, PAGE, 0, 3},
        {"remote atomic, local write", 0, PAGE, 0, 9},
        {"zero-based, local write", 0, PAGE, 0, 0x21},
        {"on demand, local write", 0, PAGE, 0, 0x41},
        {"huge pages, local write", 0, PAGE, 0, 0x81},
        {"flush global, local write", 0, PAGE, 0, 0x101},
        {"flush persistent, local write", 0, PAGE, 0, 0x201},
        {"both flushes, remote write, local write", 0, PAGE, 0, 0x303},
        {"relaxed ordering, local write", 0, PAGE, 0, 0x100001},
        {"all optional bits, local write", 0, PAGE, 0, 0x3ff00001},
    };
    for (size_t i = 0; i < LENGTH(ranges); i++) {
        int error =
            reg_mr(pd, pages_address() + ranges[i].offset, ranges[i].length, ranges[i].iova, ranges[i].access, &mr);
        step(error, "REG_MR %s", ranges[i].name);
        if (error == 0)
            dereg_mr(mr);
    }
    uint8_t *readable = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int error = reg_mr(pd, (uintptr_t)readable, PAGE, 0, 0, &mr);
    step(error, "REG_MR of read-only pages");
    if (error == 0)
        dereg_mr(mr);
    step(reg_mr(pd, (uintptr_t)readable, PAGE, 0, 1, &mr), "REG_MR local write of read-only pages");

    reg_mr(pd, pages_address(), 2 * PAGE, pages_address(), 3, &mr);
    static const struct {
        const char *name;
        uint32_t flags, access;
        uint64_t offset, length, iova;
        bool has_other_pd;
    } changes[] = {
        {"nothing", 0, 0, 0, 0, 0, false},
        {"access", IB_MR_REREG_ACCESS, 1, 0, 0, 0, false},
        {"unknown access", IB_MR_REREG_ACCESS, 1 << 19, 0, 0, 0, false},
        {"remote write alone", IB_MR_REREG_ACCESS, 2, 0, 0, 0, false},
        {"PD", IB_MR_REREG_PD, 0, 0, 0, 0, true},
        {"PD and access", IB_MR_REREG_PD | IB_MR_REREG_ACCESS, 3, 0, 0, 0, false},
        {"translation", IB_MR_REREG_TRANS, 0, 0, PAGE, 0, false},
        {"translation of another offset", IB_MR_REREG_TRANS, 0, 8, PAGE, 16, false},
        {"all", IB_MR_REREG_TRANS | IB_MR_REREG_PD | IB_MR_REREG_ACCESS, 1, 0, PAGE, 0, false},
        {"flag 8", 8, 0, 0, 0, 0, false},
    };
    for (size_t i = 0; i < LENGTH(changes); i++) {
        struct ib_uverbs_rereg_mr in = {.mr_handle = mr,
                                        .flags = changes[i].flags,
                                        .start = pages_address() + changes[i].offset,
                                        .length = changes[i].length,
                                        .hca_va = changes[i].iova,
                                        .pd_handle = changes[i].has_other_pd ? other_pd : pd,
                                        .access_flags = changes[i].access};
        struct ib_uverbs_rereg_mr_resp out = {0};
        step(INVOKE(IB_USER_VERBS_CMD_REREG_MR, in, out), "REREG_MR %s", changes[i].name);
    }
    struct ib_uverbs_rereg_mr gone = {.mr_handle = NO_HANDLE, .flags = IB_MR_REREG_ACCESS};
    struct ib_uverbs_rereg_mr_resp nothing = {0};
    step(INVOKE(IB_USER_VERBS_CMD_REREG_MR, gone, nothing), "REREG_MR of a handle that does not exist");
    dereg_mr(mr);

    reg_mr(pd, pages_address() + 8, PAGE, 0x10008, 3, &mr);
    const struct {
        const char *name;
        uint32_t handle;
        bool has_iova;
    } queries[] = {
        {"with iova", mr, true}, {"without iova", mr, false}, {"of a PD", pd, true},
        {"of a handle that does not exist", NO_HANDLE, true}};
    for (size_t i = 0; i < LENGTH(queries); i++) {
        uint32_t lkey = 0, rkey = 0;
        uint64_t length = 0, iova = 0;
        struct message message = begin(UVERBS_OBJECT_MR, UVERBS_METHOD_QUERY_MR);
        add(&message, UVERBS_ATTR_QUERY_MR_HANDLE, 0, queries[i].handle);
        add_pointer(&message, UVERBS_ATTR_QUERY_MR_RESP_LKEY, &lkey, sizeof lkey);
        add_pointer(&message, UVERBS_ATTR_QUERY_MR_RESP_RKEY, &rkey, sizeof rkey);
        add_pointer(&message, UVERBS_ATTR_QUERY_MR_RESP_LENGTH, &length, sizeof length);
        if (queries[i].has_iova)
            add_pointer(&message, UVERBS_ATTR_QUERY_MR_RESP_IOVA, &iova, sizeof iova);
        int result = call(&message);
        const bool is_right = lkey == rkey && length == PAGE && iova == (queries[i].has_iova ? 0x10008 : 0);
        step(result, "QUERY_MR %s%s", queries[i].name,
             result != 0 ? "" : is_right ? ", as registered" : ", wrong");
    }

    struct ib_uverbs_sge list[2] = {{.addr = pages_address(), .length = PAGE, .lkey = 1},
                                    {.addr = pages_address(), .length = 1, .lkey = 2}};
    for (int advice = 0; advice < 4; advice++)
        for (int flags = 0; flags < 4; flags++)
            step(advise(pd, advice, flags, list, 1), "ADVISE_MR advice %d flags %d", advice, flags);
    step(advise(pd, 0, 0, list, 2), "ADVISE_MR with 2 SGEs");
    step(advise(pd, 0, 0, list, 0), "ADVISE_MR with 0 SGEs");
    step(advise(NO_HANDLE, 0, 0, list, 1), "ADVISE_MR, PD that does not exist");
    step(advise(pd, 1ull << 40, 0, list, 1), "ADVISE_MR advice of 41 bits");
    dereg_mr(mr);

    int memory_file = memfd_create("pages", 0);
    if (ftruncate(memory_file, PAGE) != 0)
        perror("ftruncate");
    /* REG_DMABUF_MR_FD is a number of 4 bytes. Attributes of other descriptors have length 0. */
    const struct {
        const char *name;
        int fd, length;
    } files[] = {{"a memory file", memory_file, 4},
                 {"-1", -1, 4},
                 {"stdin", STDIN_FILENO, 4},
                 {"a memory file in an attribute of length 0", memory_file, 0}};
    for (size_t i = 0; i < LENGTH(files); i++)
        for (int bit = -1; bit < (i == 0 ? 11 : 1); bit++) {
            uint32_t lkey, rkey;
            struct message message = begin(UVERBS_OBJECT_MR, UVERBS_METHOD_REG_DMABUF_MR);
            add(&message, UVERBS_ATTR_REG_DMABUF_MR_HANDLE, 0, 0);
            add(&message, UVERBS_ATTR_REG_DMABUF_MR_PD_HANDLE, 0, pd);
            add(&message, UVERBS_ATTR_REG_DMABUF_MR_OFFSET, 8, 0);
            add(&message, UVERBS_ATTR_REG_DMABUF_MR_LENGTH, 8, PAGE);
            add(&message, UVERBS_ATTR_REG_DMABUF_MR_IOVA, 8, 0);
            add(&message, UVERBS_ATTR_REG_DMABUF_MR_FD, files[i].length, (uint32_t)files[i].fd);
            add(&message, UVERBS_ATTR_REG_DMABUF_MR_ACCESS_FLAGS, 4, bit < 0 ? 0 : 1u << bit);
            add_pointer(&message, UVERBS_ATTR_REG_DMABUF_MR_RESP_LKEY, &lkey, sizeof lkey);
            add_pointer(&message, UVERBS_ATTR_REG_DMABUF_MR_RESP_RKEY, &rkey, sizeof rkey);
            step(call(&message), "REG_DMABUF_MR of %s, access %#x", files[i].name, bit < 0 ? 0 : 1u << bit);
        }

    uint32_t lkey, rkey;
    struct message message = begin(UVERBS_OBJECT_MR, UVERBS_METHOD_DM_MR_REG);
    add(&message, UVERBS_ATTR_REG_DM_MR_HANDLE, 0, 0);
    add(&message, UVERBS_ATTR_REG_DM_MR_OFFSET, 8, 0);
    add(&message, UVERBS_ATTR_REG_DM_MR_LENGTH, 8, PAGE);
    add(&message, UVERBS_ATTR_REG_DM_MR_PD_HANDLE, 0, pd);
    add(&message, UVERBS_ATTR_REG_DM_MR_ACCESS_FLAGS, 4, IB_UVERBS_ACCESS_ZERO_BASED);
    add(&message, UVERBS_ATTR_REG_DM_MR_DM_HANDLE, 0, NO_HANDLE);
    add_pointer(&message, UVERBS_ATTR_REG_DM_MR_RESP_LKEY, &lkey, sizeof lkey);
    add_pointer(&message, UVERBS_ATTR_REG_DM_MR_RESP_RKEY, &rkey, sizeof rkey);
    step(call(&message), "DM_MR_REG, device memory that does not exist");
    message = begin(UVERBS_OBJECT_DM, UVERBS_METHOD_DM_ALLOC);
    add(&message, UVERBS_ATTR_ALLOC_DM_HANDLE, 0, 0);
    add(&message, UVERBS_ATTR_ALLOC_DM_LENGTH, 8, PAGE);
    add(&message, UVERBS_ATTR_ALLOC_DM_ALIGNMENT, 4, 0);
    step(call(&message), "DM_ALLOC");
    message = begin(UVERBS_OBJECT_DM, UVERBS_METHOD_DM_FREE);
    add(&message, UVERBS_ATTR_FREE_DM_HANDLE, 0, 0);
    step(call(&message), "DM_FREE of a PD");

    /* The method and its attributes in Linux 6.17; Linux 6.12 has neither. */
    enum { METHOD_REG_MR = 5 };
    enum { HANDLE = 0, PD_HANDLE = 1, IOVA = 3, ADDR = 4, SIZE = 5, ACCESS_FLAGS = 6, RESP_LKEY = 9, RESP_RKEY = 10 };
    message = begin(UVERBS_OBJECT_MR, METHOD_REG_MR);
    add(&message, HANDLE, 0, 0);
    add(&message, PD_HANDLE, 0, pd);
    add(&message, IOVA, 8, pages_address());
    add(&message, ADDR, 8, pages_address());
    add(&message, SIZE, 8, PAGE);
    add(&message, ACCESS_FLAGS, 4, IB_UVERBS_ACCESS_LOCAL_WRITE);
    add_pointer(&message, RESP_LKEY, &lkey, sizeof lkey);
    add_pointer(&message, RESP_RKEY, &rkey, sizeof rkey);
    step(call(&message), "REG_MR by ioctl");

    for (int type = 0; type < 5; type++) {
        struct ib_uverbs_alloc_mw in = {.pd_handle = pd, .mw_type = type};
        struct ib_uverbs_alloc_mw_resp out = {0};
        step(INVOKE(IB_USER_VERBS_CMD_ALLOC_MW, in, out), "ALLOC_MW type %d", type);
    }
    struct ib_uverbs_alloc_mw without_pd = {.pd_handle = NO_HANDLE, .mw_type = 1};
    struct ib_uverbs_alloc_mw_resp none = {0};
    step(INVOKE(IB_USER_VERBS_CMD_ALLOC_MW, without_pd, none), "ALLOC_MW, PD that does not exist");
}

int main(int argc, char **argv)
{
    take_no_arguments(argc, argv);
    pages = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    regions();
    return 0;
}
