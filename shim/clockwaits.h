/*
 * Waits until a time of a given clock: functions that the C library's headers do not declare, or only the headers of
 * newer ones.
 */
#ifndef USERDMA_CLOCKWAITS_H
#define USERDMA_CLOCKWAITS_H

#include <pthread.h>
#include <semaphore.h>
#include <time.h>

int pthread_clockjoin_np(pthread_t thread, void **result, clockid_t clock, const struct timespec *deadline);
int pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *deadline);
int pthread_rwlock_clockrdlock(pthread_rwlock_t *lock, clockid_t clock, const struct timespec *deadline);
int pthread_rwlock_clockwrlock(pthread_rwlock_t *lock, clockid_t clock, const struct timespec *deadline);
int pthread_cond_clockwait(pthread_cond_t *condition, pthread_mutex_t *mutex, clockid_t clock,
                           const struct timespec *deadline);
int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *deadline);

#endif
