/*
 * The pages of documentation that packages have: those of `userdma help` (src/cli/pages.ts), with what they refer to.
 */
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { filesBelow, inRoot } from '../common.mjs'

/**
 * Paths of the pages, and of dashboards. Records of decisions are for those who change userdma: they have a checkout.
 */
export const helpFiles = () =>
  filesBelow(inRoot('docs'), path => path.endsWith('.md') || path.includes('/dashboards/')).filter(
    path => !path.startsWith(inRoot('docs', 'decisions')),
  )

/** Paths of the images that pages show. */
export const imagesOf = pages =>
  new Set(
    pages.flatMap(page =>
      [...readFileSync(page, 'utf8').matchAll(/!\[[^\]]*\]\(([^)]+)\)/g)].map(([, image]) =>
        join(dirname(page), image),
      ),
    ),
  )
