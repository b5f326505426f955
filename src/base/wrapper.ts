/*
 * For functions that wrap a record, such as a port or an engine's environment, and replace some of its members: the
 * compiler refuses a wrapper that lacks a member of the record's type, even an optional one.
 */

/** T with every member named; an optional one may be undefined. */
export type AllMembers<T> = { [K in keyof Required<T>]: T[K] }

/** A wrapper of a T. `undefined` means that the optional member is absent, as it is in the wrapped record. */
export const wrapper = <T>(members: AllMembers<T>): T => members as T
