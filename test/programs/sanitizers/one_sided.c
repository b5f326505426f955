/*
 * Mistakes with memory that a peer writes and reads, and what resembles them and is right, for programs that are built
 * with a sanitizer. Each case is a function, so that its name stands in a report.
 *
 *   one_sided CASE…
 *
 * Each case has two queue pairs of the first device, of RC or (-DSRD) of SRD. `there` is the memory's owner: the main
 * thread, unless a case says otherwise. Exit status 0 unless a sanitizer says otherwise.
 */
#include "../../../docs/findings/pair.h"

#include <pthread.h>
#include <stdbool.h>

#define LENGTH 64
#define CASE(name) static __attribute__((noinline)) void name(void)

static struct end here, there;
/* By which the threads take turns, without an order of what they do: relaxed. */
static int turn;
/* What no device reaches. */
static int plain;

static void pass_turn(int to)
{
    __atomic_store_n(&turn, to, __ATOMIC_RELAXED);
}

static void await_turn(int of)
{
    while (__atomic_load_n(&turn, __ATOMIC_RELAXED) != of)
        sched_yield();
}

static struct ibv_sge part(const struct end *end, size_t offset, uint32_t length)
{
    return (struct ibv_sge){.addr = address_of(end) + offset, .length = length, .lkey = end->mr->lkey};
}

static void take(struct end *end)
{
    struct ibv_wc wc;
    int found;
    while ((found = ibv_poll_cq(end->cq, 1, &wc)) == 0)
        sched_yield();
    if (found < 0 || wc.status != IBV_WC_SUCCESS) {
        fprintf(stderr, "completion: %s\n", found < 0 ? "none" : ibv_wc_status_str(wc.status));
        exit(1);
    }
}

/* Writes `length` bytes of here's buffer to there's, at the same offset. */
static void write_part(size_t offset, uint32_t length)
{
    post(&here, IBV_WR_RDMA_WRITE, part(&here, offset, length), address_of(&there) + offset, there.mr->rkey);
}

static void in_thread(pthread_t *thread, void *(*run)(void *))
{
    check(pthread_create(thread, NULL, run, NULL), "pthread_create");
}

static uint64_t *word(const struct end *end, size_t offset)
{
    return (uint64_t *)(end->buffer + offset);
}

/* Waits for a flag in memory. */
static void await_word(const struct end *end, size_t offset, uint64_t value)
{
    while (__atomic_load_n(word(end, offset), __ATOMIC_ACQUIRE) != value)
        sched_yield();
}

/* ---- mistakes ---- */

/* The slot is written again while the owner reads it: there are no credits. */
static void *write_twice(void *nothing)
{
    *word(&here, 56) = 1;
    write_part(0, LENGTH);
    take(&here);
    await_turn(1);
    write_part(0, LENGTH);
    take(&here);
    return nothing;
}

CASE(ring_without_credits)
{
    pthread_t thread;
    in_thread(&thread, write_twice);
    await_word(&there, 56, 1);
    plain += there.buffer[8];
    pass_turn(1);
    pthread_join(thread, NULL);
}

static void *write_once(void *nothing)
{
    *word(&here, 0) = 1;
    write_part(0, LENGTH);
    take(&here);
    pass_turn(1);
    return nothing;
}

/* The flag is in front of its data: the bytes arrive in their order. */
CASE(flag_before_data)
{
    pthread_t thread;
    in_thread(&thread, write_once);
    await_turn(1);
    await_word(&there, 0, 1);
    plain += there.buffer[8];
    pthread_join(thread, NULL);
}

static void *write_tail_first(void *nothing)
{
    *word(&here, 0) = 1;
    write_part(0, 8);
    write_part(LENGTH, LENGTH);
    take(&here);
    take(&here);
    pass_turn(1);
    return nothing;
}

CASE(tail_before_payload)
{
    pthread_t thread;
    in_thread(&thread, write_tail_first);
    await_turn(1);
    await_word(&there, 0, 1);
    plain += there.buffer[LENGTH];
    pthread_join(thread, NULL);
}

/* The owner reads without looking whether the object is being written. */
CASE(torn_read)
{
    pthread_t thread;
    in_thread(&thread, write_once);
    await_turn(1);
    plain += there.buffer[8];
    pthread_join(thread, NULL);
}

/* Of 4 KiB, whose middle no word orders. */
CASE(torn_middle)
{
    write_part(0, SIZE);
    struct ibv_wc wc;
    do /* the WRITE may be over before the post returns */
        plain += there.buffer[SIZE / 2];
    while (ibv_poll_cq(here.cq, 1, &wc) == 0);
}

/* A slot of receives is posted again while the owner reads it. */
CASE(reposted_too_early)
{
    for (int i = 0; i < 2; i++) {
        if (i == 0)
            post_receive(&there, part(&there, 0, LENGTH));
        post(&here, IBV_WR_SEND, part(&here, 0, LENGTH), 0, 0);
        take(&here);
        take(&there);
        if (i == 0)
            post_receive(&there, part(&there, 0, LENGTH));
        plain += there.buffer[8];
    }
}

/* The owner changes what the peer reads. */
CASE(changed_while_read)
{
    post(&here, IBV_WR_RDMA_READ, part(&here, 0, LENGTH), address_of(&there), there.mr->rkey);
    struct ibv_wc wc;
    do /* ThreadSanitizer does not report an access that is too long ago */
        there.buffer[8] = 2;
    while (ibv_poll_cq(here.cq, 1, &wc) == 0);
}

#ifndef SRD
/* The data comes by one queue pair, the message about it by another. */
CASE(other_queue_pair)
{
    struct end from = {0}, to = {0};
    make_end(&from);
    make_end(&to);
    connect_ends(&from, &to);
    post_receive(&to, part(&to, 0, LENGTH));
    write_part(0, LENGTH);
    post(&from, IBV_WR_SEND, part(&from, 0, LENGTH), 0, 0);
    take(&from);
    take(&to);
    plain += there.buffer[8];
    take(&here);
}
#endif

static char *block_of(struct end *end, size_t allocated)
{
    char *const block = malloc(allocated);
    memset(block, 1, allocated);
    end->extra = need(ibv_reg_mr(end->pd, block, LENGTH, ALL_RIGHTS), "ibv_reg_mr");
    return block;
}

static void write_to(uintptr_t address)
{
    post(&here, IBV_WR_RDMA_WRITE, part(&here, 0, LENGTH), address, there.extra->rkey);
    take(&here);
}

CASE(written_after_free)
{
    char *const block = block_of(&there, LENGTH);
    const uintptr_t address = (uintptr_t)block;
    free(block);
    write_to(address);
}

/* Inside of its region. */
CASE(written_past_object)
{
    write_to((uintptr_t)block_of(&there, LENGTH / 2));
}

/* ---- right ---- */

CASE(by_completion)
{
    for (int i = 0; i < 8; i++) {
        there.buffer[1] = 1;
        write_part(0, SIZE);
        take(&here);
        plain += there.buffer[SIZE / 2];
        there.buffer[SIZE / 2] = 2;
        post(&here, IBV_WR_RDMA_READ, part(&here, 0, SIZE), address_of(&there), there.mr->rkey);
        take(&here);
        there.buffer[8] = 3;
    }
}

CASE(freed_in_time)
{
    char *const block = block_of(&there, LENGTH);
    write_to((uintptr_t)block);
    check(ibv_dereg_mr(there.extra), "ibv_dereg_mr");
    there.extra = NULL;
    free(block);
}

#ifndef SRD
CASE(by_message)
{
    for (int i = 0; i < 8; i++) {
        post_receive(&there, part(&there, 0, LENGTH));
        there.buffer[LENGTH] = 1;
        write_part(LENGTH, SIZE - LENGTH);
        post(&here, IBV_WR_SEND, part(&here, 0, LENGTH), 0, 0);
        take(&there);
        plain += there.buffer[SIZE / 2];
        there.buffer[SIZE / 2] = 2;
        take(&here);
        take(&here);
    }
}

CASE(by_immediate)
{
    post_receive(&there, part(&there, 0, LENGTH));
    post(&here, IBV_WR_RDMA_WRITE_WITH_IMM, part(&here, 0, SIZE), address_of(&there), there.mr->rkey);
    take(&there);
    plain += there.buffer[SIZE / 2];
    take(&here);
}

static void *write_flag_last(void *nothing)
{
    for (uint64_t i = 1; i <= 4; i++) {
        *word(&here, SIZE - 8) = i;
        write_part(0, SIZE);
        take(&here);
        while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != (int)i)
            sched_yield();
    }
    return nothing;
}

/* The owner has read before a thread of the program lets the peer write again. */
CASE(flag_last)
{
    pthread_t thread;
    in_thread(&thread, write_flag_last);
    for (uint64_t i = 1; i <= 4; i++) {
        await_word(&there, SIZE - 8, i);
        plain += there.buffer[8] + there.buffer[SIZE / 2];
        __atomic_store_n(&turn, (int)i, __ATOMIC_RELEASE);
    }
    pthread_join(thread, NULL);
}

static void *write_flag_after(void *nothing)
{
    *word(&here, 0) = 1;
    write_part(LENGTH, SIZE - LENGTH);
    write_part(0, 8);
    take(&here);
    take(&here);
    return nothing;
}

CASE(flag_follows)
{
    pthread_t thread;
    in_thread(&thread, write_flag_after);
    await_word(&there, 0, 1);
    plain += there.buffer[LENGTH] + there.buffer[SIZE / 2];
    pthread_join(thread, NULL);
}

/* Flags of 4 bytes and of one byte, not at a word's start. */
static void *write_small_flags(void *nothing)
{
    here.buffer[4] = 1;
    write_part(LENGTH, LENGTH);
    write_part(0, 8);
    take(&here);
    take(&here);
    here.buffer[13] = 1;
    write_part(2 * LENGTH, LENGTH);
    write_part(11, 3);
    take(&here);
    take(&here);
    /* the end of a longer one */
    here.buffer[4 * LENGTH - 2] = 1;
    write_part(3 * LENGTH, LENGTH);
    take(&here);
    /* the upper half of a word */
    here.buffer[5 * LENGTH + 4] = 1;
    write_part(4 * LENGTH, LENGTH);
    write_part(5 * LENGTH + 4, 4);
    take(&here);
    take(&here);
    return nothing;
}

CASE(small_flags)
{
    pthread_t thread;
    in_thread(&thread, write_small_flags);
    while (!__atomic_load_n((uint32_t *)(there.buffer + 4), __ATOMIC_ACQUIRE))
        sched_yield();
    plain += there.buffer[LENGTH];
    while (!__atomic_load_n((bool *)(there.buffer + 13), __ATOMIC_ACQUIRE))
        sched_yield();
    plain += there.buffer[2 * LENGTH];
    while (!__atomic_load_n((uint16_t *)(there.buffer + 4 * LENGTH - 2), __ATOMIC_ACQUIRE))
        sched_yield();
    plain += there.buffer[3 * LENGTH];
    await_word(&there, 5 * LENGTH, 1ull << 32);
    plain += there.buffer[4 * LENGTH];
    pthread_join(thread, NULL);
}

/* The producer reads how far the owner is. */
static void *produce_by_reads(void *nothing)
{
    for (uint64_t i = 1; i <= 20; i++) {
        *word(&here, 56) = i;
        write_part(0, LENGTH);
        take(&here);
        do {
            post(&here, IBV_WR_RDMA_READ, part(&here, LENGTH, 8), address_of(&there) + LENGTH, there.mr->rkey);
            take(&here);
        } while (*word(&here, LENGTH) != i);
    }
    return nothing;
}

CASE(credits_by_read)
{
    pthread_t thread;
    in_thread(&thread, produce_by_reads);
    for (uint64_t i = 1; i <= 20; i++) {
        await_word(&there, 56, i);
        plain += there.buffer[8];
        there.buffer[8] = 0;
        __atomic_store_n(word(&there, LENGTH), i, __ATOMIC_RELEASE);
    }
    pthread_join(thread, NULL);
}

/* A queue pair in ERR takes no request. */
CASE(ended)
{
    pthread_t thread;
    in_thread(&thread, write_small_flags);
    while (!__atomic_load_n(there.buffer + 5 * LENGTH + 4, __ATOMIC_RELAXED))
        sched_yield();
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};
    check(ibv_modify_qp(there.qp, &attr, IBV_QP_STATE), "ibv_modify_qp to ERR");
    plain += there.buffer[LENGTH];
    pthread_join(thread, NULL);
}

/* The owner gives the slot back by a WRITE to the producer. */
static void *produce(void *nothing)
{
    for (uint64_t i = 1; i <= 20; i++) {
        await_word(&here, SIZE - 8, i - 1);
        memset(here.buffer, (int)i, 56);
        *word(&here, 56) = i;
        write_part(0, LENGTH);
        take(&here);
    }
    return nothing;
}

CASE(ring_with_credits)
{
    pthread_t thread;
    in_thread(&thread, produce);
    for (uint64_t i = 1; i <= 20; i++) {
        await_word(&there, 56, i);
        plain += there.buffer[8];
        there.buffer[8] = 0;
        *word(&there, SIZE - 8) = i;
        post(&there, IBV_WR_RDMA_WRITE, part(&there, SIZE - 8, 8), address_of(&here) + SIZE - 8, here.mr->rkey);
        take(&there);
    }
    pthread_join(thread, NULL);
}

/* A version before and after the data, which is read by atomic loads, until both are the same. */
static void *write_versions(void *nothing)
{
    for (uint64_t i = 1; i <= 20; i++) {
        for (size_t at = 0; at < LENGTH; at += 8)
            *word(&here, at) = i;
        write_part(0, LENGTH);
        take(&here);
    }
    return nothing;
}

CASE(seqlock)
{
    pthread_t thread;
    in_thread(&thread, write_versions);
    for (uint64_t version = 0; version != 20;) {
        version = __atomic_load_n(word(&there, 0), __ATOMIC_ACQUIRE);
        for (size_t at = 8; at < LENGTH - 8; at += 8)
            plain += (int)__atomic_load_n(word(&there, at), __ATOMIC_ACQUIRE);
        if (__atomic_load_n(word(&there, LENGTH - 8), __ATOMIC_RELAXED) != version)
            version = 0;
    }
    pthread_join(thread, NULL);
}

static void *add_there(void *nothing)
{
    for (int i = 0; i < 20; i++) {
        struct ibv_sge sge = part(&here, 0, 8);
        struct ibv_send_wr *bad, wr = {.sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_ATOMIC_FETCH_AND_ADD};
        wr.wr.atomic.remote_addr = address_of(&there);
        wr.wr.atomic.rkey = there.mr->rkey;
        wr.wr.atomic.compare_add = 1;
        check(ibv_post_send(here.qp, &wr, &bad), "ibv_post_send");
        take(&here);
    }
    return nothing;
}

CASE(counter)
{
    pthread_t thread;
    in_thread(&thread, add_there);
    while (__atomic_load_n(word(&there, 0), __ATOMIC_ACQUIRE) < 20)
        __atomic_fetch_add(word(&there, 8), 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
}
#endif

static void *nothing(void *argument)
{
    return argument;
}

/* A child that starts a thread, and a parent that goes on. */
CASE(forked)
{
    by_completion();
    const pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        const bool has_started = pthread_create(&thread, NULL, nothing, NULL) == 0;
        if (has_started)
            pthread_join(thread, NULL);
        _exit(has_started ? 0 : 3);
    }
    int status = -1;
    waitpid(child, &status, 0);
    if (status != 0) {
        fprintf(stderr, "the child has ended with 0x%x\n", status);
        exit(1);
    }
    by_completion();
}

#ifndef SRD
/* What the ends tell each other by pipes. */
struct greeting {
    uint64_t address;
    uint32_t number, rkey;
};
static int from_other, to_other;
/* Their streams; NULL: calls of the system. */
static FILE *reads_other, *writes_other;

static void wait_for_other(void)
{
    char byte;
    check(reads_other ? fgetc(reads_other) == EOF : read(from_other, &byte, 1) != 1, "read");
}

static void tell_other(void)
{
    if (writes_other)
        check(fprintf(writes_other, "%d", 0) != 1 || fflush(writes_other) != 0, "fprintf");
    else
        check(write(to_other, "", 1) != 1, "write");
}

/* Connects `here` to the end of another process, of which it returns what it has said. */
static struct greeting greet(void)
{
    struct greeting own = {address_of(&here), here.qp->qp_num, here.mr->rkey}, other;
    check(write(to_other, &own, sizeof own) != sizeof own, "write");
    check(read(from_other, &other, sizeof other) != sizeof other, "read");
    here.attr.dest_qp_num = other.number;
    to_rtr(&here, &here);
    to_rts(&here);
    tell_other();
    wait_for_other();
    return other;
}

/* The peer is a child, which says by a pipe what it has done. */
CASE(other_process)
{
    int pipes[4];
    check(pipe(pipes), "pipe");
    check(pipe(pipes + 2), "pipe");
    const pid_t child = fork();
    from_other = pipes[child ? 0 : 2];
    to_other = pipes[child ? 3 : 1];
    here = (struct end){0};
    open_device();
    make_end(&here);
    memset(here.buffer, child ? 1 : 2, SIZE);
    const struct greeting other = greet();
    for (int i = 0; i < 8; i++) {
        if (i == 4) {
            reads_other = need(fdopen(from_other, "r"), "fdopen");
            writes_other = need(fdopen(to_other, "w"), "fdopen");
        }
        if (child == 0) {
            post(&here, IBV_WR_RDMA_WRITE, part(&here, 0, SIZE), other.address, other.rkey);
            take(&here);
            tell_other();
            wait_for_other();
        } else {
            wait_for_other();
            if (here.buffer[SIZE / 2] != 2)
                exit(1);
            here.buffer[SIZE / 2] = 1;
            tell_other();
        }
    }
    if (child == 0) {
        post(&here, IBV_WR_RDMA_WRITE, part(&here, 0, SIZE), other.address, other.rkey);
        take(&here);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    here.buffer[SIZE / 2] = 1;
}
#endif

/* The main thread ends before the program. Not under ThreadSanitizer, whose own thread does not end. */
CASE(last_thread)
{
    pthread_exit(NULL);
}

#define ROW(name) {#name, name}
static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {
    ROW(reposted_too_early), ROW(changed_while_read), ROW(torn_middle), ROW(written_after_free), ROW(last_thread),
    ROW(written_past_object), ROW(ring_without_credits), ROW(torn_read), ROW(by_completion), ROW(freed_in_time),
    ROW(forked), ROW(flag_before_data), ROW(tail_before_payload),
#ifndef SRD
    ROW(other_queue_pair), ROW(by_message), ROW(by_immediate), ROW(flag_last), ROW(flag_follows), ROW(small_flags),
    ROW(credits_by_read), ROW(ended),
    ROW(ring_with_credits), ROW(seqlock), ROW(counter), ROW(other_process),
#endif
};

int main(int count, char **arguments)
{
    for (int argument = 1; argument < count; argument++) {
        size_t i = 0;
        while (i < sizeof cases / sizeof cases[0] && strcmp(cases[i].name, arguments[argument]) != 0)
            i++;
        if (i == sizeof cases / sizeof cases[0]) {
            fprintf(stderr, "usage: %s CASE…\n", arguments[0]);
            return 1;
        }
        here = there = (struct end){0};
        make_pair(&here, &there);
        memset(here.buffer, 0, SIZE);
        memset(there.buffer, 0, SIZE);
        turn = 0;
        cases[i].run();
    }
    return 0;
}
