/*
 * A library whose constructor waits for a thread that locks a mutex and waits for a condition: functions that
 * shim/waits intercepts. With -DPROGRAM: the program that loads it.
 */
#include <dlfcn.h>
#include <pthread.h>

#ifdef PROGRAM
int main(int count, char **arguments)
{
    return count == 2 && dlopen(arguments[1], RTLD_NOW) ? 0 : 1;
}
#else
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;
static int is_waiting;

static void *run(void *unused)
{
    pthread_mutex_lock(&mutex);
    is_waiting = 1;
    while (is_waiting)
        pthread_cond_wait(&condition, &mutex);
    pthread_mutex_unlock(&mutex);
    return unused;
}

__attribute__((constructor)) static void start(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, run, NULL);
    for (int was_waiting = 0; !was_waiting;) {
        pthread_mutex_lock(&mutex);
        was_waiting = is_waiting;
        is_waiting = 0;
        pthread_cond_signal(&condition);
        pthread_mutex_unlock(&mutex);
    }
    pthread_join(thread, NULL);
}
#endif
