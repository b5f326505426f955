/*
 * Queues that firmware commands make (mlx5dv_devx_…), without a call of verbs for them: two contexts of one process,
 * each with a completion queue, an RC queue pair with a pool of receives, a target and an initiator of DC. SENDs, and
 * WRITEs to a key whose range a work request has set (UMR), go from one to the other, and their completions are told by
 * a channel of events, and by an eventfd. The doorbell records of both contexts are in one page.
 *
 *   firmware_queues DEVICE [attacked]
 *
 * attacked: before the first request it prints the arguments of firmware_attack, and waits for the end of its standard
 * input.
 */
#define _GNU_SOURCE
#include <infiniband/mlx5dv.h>
#include <inttypes.h>
#include <sys/eventfd.h>

#include "../commands.h"

#define ROUNDS 100

/* The numbers of both sides. The objects before them have handles, too, which the attacker finds. */
static void wait_for_attack(const struct side *one, const struct side *other)
{
    const struct side *sides[] = {one, other};
    for (int i = 0; i < 2; i++) {
        const struct side *side = sides[i];
        const uint32_t numbers[] = {side->pdn,  side->uar->page_id, side->umem->umem_id, side->record_umem->umem_id,
                                    side->cqn,  side->rmpn,         side->rc.qpn,        side->dci.qpn,
                                    side->dctn, side->key_index,    side->mr->lkey,      side->mr->rkey};
        for (unsigned k = 0; k < sizeof numbers / sizeof *numbers; k++)
            printf("%u ", numbers[k]);
        printf("%" PRIu64 "%s", (uint64_t)(uintptr_t)side->data, i == 0 ? " " : "\n");
    }
    fflush(stdout);
    NEED(getchar() == EOF, "a line, not the end of the input");
}

int main(int argc, char **argv)
{
    const bool is_attacked = argc == 3 && strcmp(argv[2], "attacked") == 0;
    NEED(argc == 2 || is_attacked, "usage: firmware_queues DEVICE [attacked]");
    uint8_t *records;
    NEED(posix_memalign((void **)&records, 4096, 4096) == 0, "no memory");
    memset(records, 0, 4096);
    static struct side one, other;
    open_side(&one, argv[1], records);
    open_side(&other, argv[1], records + 2048);
    const int index = choose_gid(one.context, -1);
    union ibv_gid gid;
    NEED(ibv_query_gid(one.context, 1, index, &gid) == 0, "GID %d: %s", index, strerror(errno));
    const int counter = eventfd(0, EFD_NONBLOCK);
    NEED(counter >= 0, "eventfd: %s", strerror(errno));
    const int error = mlx5dv_devx_subscribe_devx_event_fd(one.channel, counter, one.cq, EVENT_COMP);
    NEED(error == 0, "subscribe an eventfd: %s", strerror(error));
    create_target(&other, index);
    start(&one.rc, &gid, other.rc.qpn, index);
    start(&other.rc, &gid, one.rc.qpn, index);
    start(&one.dci, NULL, 0, index);
    set_range(&other, &other.rc, other.rkey, other.mr);
    wait_for(&other, "the range of the key");
    if (is_attacked)
        wait_for_attack(&one, &other);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        const bool is_dc = i & 1;
        struct sender *sender = is_dc ? &one.dci : &one.rc;
        const uint32_t target = is_dc ? other.dctn : 0;
        uint64_t value = i * 0x100000001ull, written;
        memcpy(one.data + 2048, &value, 8);
        post_receive(&other);
        if (i == 0)
            arm(&one);
        post(&one, sender, &other, &gid, WRITE, 0, target, index);
        post(&one, sender, &other, &gid, SEND_IMM, i, target, index);
        for (int k = 0; k < 2; k++)
            wait_for(&one, "a request");
        const uint8_t *entry = wait_for(&other, "a receive");
        NEED(get(entry, 36 * 8, 32) == i, "round %u: immediate data %u", i, get(entry, 36 * 8, 32));
        NEED(get(entry, 57 * 8, 24) == (is_dc ? other.dctn : other.rc.qpn), "round %u: another queue pair", i);
        NEED(get(entry, 60 * 8, 16) == i, "round %u: receive %u", i, get(entry, 60 * 8, 16));
        memcpy(&written, other.data + 1024, 8);
        NEED(written == value && memcmp(other.data, &value, 8) == 0, "round %u: other bytes", i);
    }
    struct pollfd wait = {.fd = counter, .events = POLLIN};
    uint64_t events = 0;
    NEED(poll(&wait, 1, 20000) == 1 && read(counter, &events, 8) == 8, "the eventfd has no event");
    close(counter);
    close_side(&other);
    close_side(&one);
    free(records);
    puts("good");
    return 0;
}
