/*
 * An allocator in the program, which `userdma check` does not see: the memory of a CQ that a thread destroys is that of
 * a new CQ of another thread before ibv_destroy_cq returns. Correct. Ends with 3 if the second CQ cannot be destroyed,
 * and with 4 if it is elsewhere.
 */
#include <infiniband/verbs.h>
#include <malloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void __libc_free(void *block);

static struct ibv_context *context;
static struct ibv_cq *destroyed;
static void *spare;
static sem_t freed, used;
static __thread int destroys, creates;
static int status = 4;

static void *take_spare(size_t size)
{
    void *block = spare;
    if (!creates || !block || size > malloc_usable_size(block) || size + 24 <= malloc_usable_size(block))
        return NULL;
    spare = NULL;
    return block;
}

void *malloc(size_t size)
{
    void *block = take_spare(size);
    return block ? block : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    void *block = take_spare(count * size);
    return block ? memset(block, 0, count * size) : __libc_calloc(count, size);
}

void free(void *block)
{
    const uintptr_t start = (uintptr_t)block, cq = (uintptr_t)destroyed;
    if (!destroys || !block || cq < start || cq >= start + malloc_usable_size(block)) {
        __libc_free(block);
        return;
    }
    spare = block;
    sem_post(&freed);
    sem_wait(&used);
}

static void *use(void *unused)
{
    sem_wait(&freed);
    creates = 1;
    struct ibv_cq *cq = ibv_create_cq(context, 4, NULL, NULL, 0);
    creates = 0;
    if (cq == destroyed)
        status = ibv_destroy_cq(cq) == 0 ? 0 : 3;
    sem_post(&used);
    return unused;
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) {
        fprintf(stderr, "usage: own_allocator\n");
        return 1;
    }
    struct ibv_device **list = ibv_get_device_list(NULL);
    context = list && list[0] ? ibv_open_device(list[0]) : NULL;
    if (!context)
        return 1;
    ibv_free_device_list(list);
    sem_init(&freed, 0, 0);
    sem_init(&used, 0, 0);
    destroyed = ibv_create_cq(context, 4, NULL, NULL, 0);
    pthread_t thread;
    pthread_create(&thread, NULL, use, NULL);
    destroys = 1;
    ibv_destroy_cq(destroyed);
    destroys = 0;
    pthread_join(thread, NULL);
    ibv_close_device(context);
    return status;
}
