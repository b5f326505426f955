/*
 * Names of queue pair attributes. `query`, `modify` and `initial` have the attributes of the class by the names of the
 * library's options, where these differ.
 */

/** The library's names by the names of the class. */
const libraryNames = { timeout: 'timeoutExponent', retryCnt: 'retryCount', rnrRetry: 'rnrRetryCount' } as const
type LibraryNames = typeof libraryNames

/** The attributes `A` of a class by the library's names. */
export type LibraryAttributes<A> = {
  [K in keyof A as K extends keyof LibraryNames ? LibraryNames[K] : K]: A[K]
}

const renamed = (attributes: object, names: Readonly<Record<string, string>>): object =>
  Object.fromEntries(Object.entries(attributes).map(([name, value]) => [names[name] ?? name, value]))

const classNames = Object.fromEntries(Object.entries(libraryNames).map(([name, option]) => [option, name]))

/** Attributes with the class's names, from attributes with the library's or the class's names. */
export const toClassNames = <A extends object>(attributes: A): A => renamed(attributes, classNames) as A
/** Attributes with the library's names. */
export const toLibraryNames = (attributes: object): object => renamed(attributes, libraryNames)
