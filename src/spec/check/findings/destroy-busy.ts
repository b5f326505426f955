/*
 * The row of the finding destroy-busy.
 */

export const destroyBusy = {
  severity: 'warning',
  needs: ['call'],
  title: 'a program tried to destroy an object that other objects use',
  why: 'The call returns EBUSY and the object stays (IBA 11.2). A program that ignores the error leaks the object.',
  libraryAdvice: 'close the objects that use it first',
} as const
