/*
 * Queues and doorbell records in the memory of a parent domain's allocator. Queues begin and end within pages, which
 * they share with other data of the program, and with records.
 *
 *   allocator DEVICE pages|huge|close
 *
 * huge: the block has huge pages; without them it prints "absent". close: queues begin in the last page of other
 * queues, and messages are in a region of the same pages.
 */
#define _GNU_SOURCE
#include "../endpoint.h"
#include <sys/mman.h>

#define BLOCK (2 << 20)
#define PAGE 4096
#define GUARD 24 /* bytes of other data in front of each record */
#define ROUNDS 200
#define PATTERN 0xa5

static uint8_t *block;
static size_t used;
static int allocations;
static bool is_data[BLOCK];
static bool is_close;

static void *allocate(struct ibv_pd *pd, void *context, size_t size, size_t alignment, uint64_t type)
{
    (void)pd, (void)context, (void)type;
    const bool is_queue = size >= PAGE && !is_close;
    const size_t start = is_queue ? (used + PAGE - 1) / PAGE * PAGE + 64 : used + GUARD;
    const size_t at = (start + alignment - 1) / alignment * alignment;
    if (at + size > BLOCK)
        return NULL;
    memset(is_data + used, true, at - used);
    used = at + size;
    allocations++;
    return block + at;
}

static void release(struct ibv_pd *pd, void *context, void *memory, uint64_t type)
{
    (void)pd, (void)context, (void)memory, (void)type;
    allocations--;
}

static const char *check_data(void)
{
    for (size_t i = 0; i < BLOCK; i++)
        if ((is_data[i] || i >= used) && block[i] != PATTERN)
            return "changed";
    return "unchanged";
}

/* Puts the queues of an end into the block. */
static void use_allocator(struct endpoint *end)
{
    NEED(ibv_destroy_qp(end->qp) == 0 && ibv_destroy_cq(end->cq) == 0, "destroy: %s", strerror(errno));
    if (is_close) {
        NEED(ibv_dereg_mr(end->mr) == 0, "ibv_dereg_mr: %s", strerror(errno));
        end->buffer = (void *)(block + BLOCK - PAGE);
        end->mr = ibv_reg_mr(end->pd, block, BLOCK, IBV_ACCESS_LOCAL_WRITE);
        NEED(end->mr, "ibv_reg_mr: %s", strerror(errno));
    }
    struct ibv_parent_domain_init_attr domain = {.pd = end->pd,
                                                 .comp_mask = IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS,
                                                 .alloc = allocate,
                                                 .free = release};
    end->pd = ibv_alloc_parent_domain(end->context, &domain);
    NEED(end->pd, "ibv_alloc_parent_domain: %s", strerror(errno));
    struct ibv_cq_init_attr_ex init = {
        .cqe = 4 * QUEUE, .comp_mask = IBV_CQ_INIT_ATTR_MASK_PD, .parent_domain = end->pd};
    struct ibv_cq_ex *cq = ibv_create_cq_ex(end->context, &init);
    NEED(cq, "ibv_create_cq_ex: %s", strerror(errno));
    end->cq = ibv_cq_ex_to_cq(cq);
    create_qp(end);
}

static void wait_for(struct endpoint *end)
{
    struct ibv_wc wc;
    while (next_completion(end, &wc) == 0)
        ;
    NEED(wc.status == IBV_WC_SUCCESS, "%s", ibv_wc_status_str(wc.status));
}

static void send_and_receive(struct endpoint *from, struct endpoint *to)
{
    struct ibv_sge source = {(uintptr_t)from->buffer, 64, from->mr->lkey};
    struct ibv_sge destination = {(uintptr_t)to->buffer, 64, to->mr->lkey};
    struct ibv_recv_wr receive = {.sg_list = &destination, .num_sge = 1}, *bad_receive;
    struct ibv_send_wr send = {.sg_list = &source, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED};
    struct ibv_send_wr *bad_send;
    NEED(ibv_post_recv(to->qp, &receive, &bad_receive) == 0, "ibv_post_recv: %s", strerror(errno));
    NEED(ibv_post_send(from->qp, &send, &bad_send) == 0, "ibv_post_send: %s", strerror(errno));
    wait_for(from);
    wait_for(to);
}

int main(int argc, char **argv)
{
    NEED(argc == 3, "usage: allocator DEVICE pages|huge|close");
    is_close = strcmp(argv[2], "close") == 0;
    const int huge = strcmp(argv[2], "huge") == 0 ? MAP_HUGETLB : 0;
    block = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | huge, -1, 0);
    if (block == MAP_FAILED && huge) {
        printf("absent\n");
        return 0;
    }
    NEED(block != MAP_FAILED, "mmap: %s", strerror(errno));
    memset(block, PATTERN, BLOCK);
    struct ibv_context *context = open_named(argv[1]);
    struct endpoint ends[2];
    for (int i = 0; i < 2; i++) {
        create_endpoint(&ends[i], context, &default_options, 4096, (uint32_t)i);
        use_allocator(&ends[i]);
    }
    printf("%d allocations\n", allocations);
    for (int i = 0; i < 2; i++) {
        const struct address peer = address_of(&ends[1 - i]);
        connect_to(&ends[i], &peer, &default_options);
    }
    for (int i = 0; i < ROUNDS; i++)
        send_and_receive(&ends[i % 2], &ends[1 - i % 2]);
    printf("data beside queues that were used: %s\n", check_data());
    for (int i = 0; i < 2; i++)
        NEED(ibv_destroy_qp(ends[i].qp) == 0 && ibv_destroy_cq(ends[i].cq) == 0, "destroy: %s", strerror(errno));
    printf("beside queues that are gone: %s, %d allocations\n", check_data(), allocations);
    memset(block, PATTERN, BLOCK);
    NEED(munmap(block, BLOCK) == 0, "munmap: %s", strerror(errno));
    return 0;
}
