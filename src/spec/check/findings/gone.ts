/*
 * The rows of findings about objects that were destroyed.
 */

export const useAfterDestroy = {
  severity: 'error',
  needs: ['call', 'library'],
  title: 'a call has an object that was destroyed',
  why: "Without userdma check, the libraries read memory that was freed: the program crashes, or changes another object. Under it the call is refused: with EINVAL, or NULL. The memory of the last 4,096 destroyed objects is kept for this. Objects whose device was closed count too: their handles belong to the device's file.",
  advice:
    'keep one owner of each object, end the threads that use it before it is destroyed, and set the pointer to NULL',
  isStale: true,
} as const

export const doubleDestroy = {
  severity: 'error',
  needs: ['call', 'library'],
  title: 'an object is destroyed twice',
  why: 'Without userdma check, the libraries free memory twice, or destroy an object that has got the same handle since. Under it the second call is refused with EINVAL.',
  advice: 'keep one owner of each object, and set the pointer to NULL when it is destroyed',
} as const
