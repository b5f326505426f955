/*
 * Attributes of drivers that tools know: records of calls need no declarations of them. All other attributes of drivers
 * are declared in the record (`Declaration` in uapi/tool.ts).
 */
import type { Attributes } from '../schema/schema.ts'
import { RxeAttributes } from './rxe.ts'

/** By class and method. */
export const knownAdditions: Readonly<
  Record<string, Readonly<Record<string, { readonly in?: Attributes; readonly out?: Attributes }>>>
> = RxeAttributes
