//! Is what cannot be trusted kept as it was found?

use super::*;

#[tokio::test]
async fn what_cannot_be_trusted_is_set_aside_and_never_written_over() {
    type Mend = fn(&str) -> Vec<Change>;
    let aside = |id: &str| vec![Change::SetAside(Kind::Certificate, id.into(), None, "x".into())];
    let delete = |id: &str| vec![Change::Delete(Kind::Certificate, id.into())];
    let over = |id: &str| vec![certificate(id, "two")];
    let mends: [(Mend, Option<&str>); 3] = [(aside, None), (delete, None), (over, Some("two"))];
    for (mend, then) in mends {
        for attack in [
            "UPDATE records SET sealed = CAST(x'00' || substr(sealed, 2) AS BLOB) WHERE id = 'a'",
            "DELETE FROM heads WHERE id = 'a'",
            "UPDATE records SET key_id = x'00' WHERE id = 'a'",
        ] {
            let place = Place::new();
            let store = place.open().await;
            put_one(&store, "a", "one").await;
            place.tamper(attack).await;
            distrust(&store, "a").await;
            store.write(mend("a"), now()).await.unwrap();
            assert_eq!(text(&store, "a").await.as_deref(), then, "{attack}");
            let asides = place.open().await.asides().await.unwrap();
            assert_eq!(asides.len(), 1, "{attack}: {asides:?}");
            // As it was found, so that whoever finds the right secret can still open it.
            let mut connection = setup::connect(&place.file()).await.unwrap();
            let sealed: Vec<u8> = sqlx::query("SELECT sealed FROM aside")
                .fetch_one(&mut connection)
                .await
                .unwrap()
                .get(0);
            assert!(sealed.len() > 40, "{attack}");
            // And the store can be sealed anew.
            connection.close().await.unwrap();
            drop(store);
            rekey(&place.file(), &place.from(), &place.from()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_store_of_the_release_before_gets_a_place_for_what_is_set_aside() {
    let place = Place::new();
    put_one(&place.open().await, "a", "one").await;
    place.tamper("DELETE FROM _sqlx_migrations WHERE version = 2; DROP TABLE aside").await;
    let store = place.open().await;
    assert_eq!(text(&store, "a").await.as_deref(), Some("one"));
    assert!(store.asides().await.unwrap().is_empty());
}
