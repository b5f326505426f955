/*
 * What the search shows first: pages for users, before those about how userdma is made. VitePress passes the function's
 * text to the page, so it uses nothing from outside.
 */
export const searchOptions = {
  miniSearch: {
    searchOptions: {
      boostDocument: id => (/^\/(?:docs\/decisions\/|docs\/why\/|test\/|[A-Z]+\.)/.test(id) ? 0.3 : 1),
    },
  },
}
