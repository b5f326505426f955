/*
 * A library whose constructor starts threads that all call an interposed function as their first action. The
 * constructor runs before the shim's. With -DPROGRAM: a program that runs the program at `arguments[2]`
 * `arguments[1]` times.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef PROGRAM
int main(int count, char **arguments)
{
    for (int runs = count == 3 ? atoi(arguments[1]) : 0, status; runs > 0; runs--) {
        const pid_t child = fork();
        if (child == 0) {
            execl(arguments[2], arguments[2], NULL);
            _exit(127);
        }
        if (waitpid(child, &status, 0) != child || status != 0)
            return 1;
    }
    return 0;
}
#else
enum { THREADS = 8 };
static pthread_barrier_t barrier;

static void *run(void *number)
{
    pthread_barrier_wait(&barrier);
    usleep((useconds_t)(size_t)number * 20); /* different starts */
    for (int i = 0; i < 2000; i++)
        send(-1, "", 1, 0);
    return NULL;
}

__attribute__((constructor)) static void start(void)
{
    pthread_t threads[THREADS];
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (size_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, run, (void *)i);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}
#endif
