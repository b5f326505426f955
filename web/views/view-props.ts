/*
 * What every view gets from the frame around it (app.tsx).
 */
import type { Store } from '../data/store.ts'
import type { Route } from '../route.ts'

export interface ViewProps {
  readonly store: Store
  readonly route: Route
}
